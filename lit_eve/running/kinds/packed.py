"""What kinds of experiment have in common that read samples packed into rows of tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Generic

from PIL import Image

from lit_eve import assemble
from lit_eve.models.text_model import TextModel
from lit_eve.models.vision_language import VisionLanguageModel
from lit_eve.planning.spread import Spread
from lit_eve.running.feed import num_steps, num_workers
from lit_eve.running.kinds.kind import E, Feed, Kind, M
from lit_eve.running.progress import progress_line
from lit_eve.schema.running import Hardware
from lit_eve.schema.training import PackedStage
from lit_eve.strategies import compile_blocks
from lit_eve_data.batches import PackedBatch
from lit_eve_data.disk.features import StoredTeacher
from lit_eve_data.disk.reading import RecordView
from lit_eve_data.loading.assembling import Assembler, RowsTask
from lit_eve_data.loading.loader import PackedLoader
from lit_eve_data.loading.passes import PackedPass
from lit_eve_data.loading.working import Share
from lit_eve_data.packing.lengths import SampleEncoder
from lit_eve_data.packing.plan import PackingPlan
from lit_eve_data.viewing.batches import draw_rows

HELD_OUT_SAMPLES = 1_024
"""Most held-out samples whose loss is computed at a validation."""


def adapt_decoder(model: VisionLanguageModel | TextModel, hardware: Hardware) -> None:
    """Recompute the decoder's activations, compile a model's blocks, as the file asks for."""
    if hardware.activation_checkpointing:
        model.language_model.recompute_activations()
    if hardware.compile:
        compile_blocks(model)


@dataclass(frozen=True)
class Packed(Kind[E, M], Generic[E, M]):
    """An experiment that trains on packed rows."""

    encoder: SampleEncoder
    """Text and pictures to what the model reads."""

    def encoder_of(self, name: str) -> SampleEncoder:
        """The encoder as the stage `name` has it."""
        return self.encoder

    def stage(self, name: str) -> PackedStage:
        """A stage that trains."""
        stage = self.experiment.trained[name]
        assert isinstance(stage, PackedStage)  # of every experiment that is packed
        return stage

    def feed(self, name: str, share: Share) -> Feed:
        """Packed rows; validation reads the first dataset of the stage."""
        stage, packing = self.stage(name), self.packing(name)
        views = [assemble.view(self.datasets, data, "train") for data in stage.data]
        steps = self.steps(name, packing)
        workers = num_workers(self.experiment.hardware)
        first = next(iter(stage.data))
        return Feed(
            PackedLoader(
                packing,
                views,
                self.encoder_of(name),
                steps,
                share,
                workers,
                self.teachers(name, views),
            ),
            self.held_out(
                name,
                first,
                "val",
                HELD_OUT_SAMPLES,
                ceil(packing.rows_per_step / share.pieces),  # what training has at once
                share,
            ),
            steps,
            share.micro_batches,
            {
                "samples": round(steps * packing.samples_per_step),
                "tokens": steps * packing.tokens_per_step,
                "padding": round(packing.padding, 4),
                "over_long": packing.over_long,
            },
        )

    def teachers(self, name: str, views: Sequence[RecordView]) -> Sequence[StoredTeacher]:
        """Features to stream in the stage `name`, of each view; none if there are no such."""
        return ()

    def drawn(self, name: str, batch: PackedBatch) -> Image.Image:
        """Rows with their samples, pictures, words and loss mask."""
        encoder = self.encoder_of(name)
        return draw_rows(batch, encoder.text, encoder.cutter)

    def held_out(
        self, name: str, data: str, split: str, limit: int, rows: int, share: Share
    ) -> PackedPass:
        """Samples that are not trained on, packed as in the stage `name`.

        Args:
            name: the stage.
            data: the dataset or its subset.
            split: val or test.
            limit: most samples.
            rows: of a batch.
            share: this process's part.
        """
        view, encoder = assemble.view(self.datasets, data, split), self.encoder_of(name)
        return PackedPass(
            view,
            encoder.lengths(data, view, 1.0),
            encoder,
            self.stage(name).tokens_per_row,
            rows_per_batch=rows,
            limit=limit,
            share=Share(share.rank, share.world),
        )

    def packing(self, name: str) -> PackingPlan:
        """Which samples come when, a pure function of the data and the file."""
        stage, sources = self.stage(name), []
        for data, weight in stage.data.items():
            view = assemble.view(self.datasets, data, "train")
            with progress_line(self.console, f"measuring {data}", "samples") as bar:
                sources.append(self.encoder_of(name).lengths(data, view, weight, bar))
        return PackingPlan(sources, stage.tokens_per_row, stage.batch, self.experiment.seed)

    def heaviest(self, name: str, rows: int) -> PackedBatch:
        """A micro-batch of so many rows with as many pictures as the data has, to be tried."""
        packing = self.packing(name)
        views = [assemble.view(self.datasets, data, "train") for data in self.stage(name).data]
        packs = packing.heaviest(rows)
        make = Assembler(
            views, self.encoder_of(name), packing.tokens_per_row, self.teachers(name, views)
        )
        return make(RowsTask(packs, packing.share(packs, 1))).batch

    def micro_batches(self, name: str, devices: int) -> int:
        """As many as `hardware.micro_batch` makes of a step's rows."""
        spread = Spread.of(self.experiment.hardware, devices)
        return spread.rounds(self.packing(name).rows_per_step)

    def steps(self, name: str, packing: PackingPlan) -> int:
        """Optimizer steps of a stage."""
        per_step: Mapping[str, float] = {
            "steps": 1.0,
            "samples": packing.samples_per_step,
            "tokens": float(packing.tokens_per_step),
            "epochs": packing.samples_per_step / packing.samples_per_epoch,
        }
        return num_steps(self.stage(name).budget, per_step)
