"""Runs of a vision-language model: packed text and pictures in, answers out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

from lightning import Callback, LightningModule
from rich.console import Console

from lit_eve import assemble
from lit_eve.evaluation.examine import Examiner, ShowAnswers, held_out, scores
from lit_eve.models.vision_language import VisionLanguageModel
from lit_eve.planning.plan import StagePlan
from lit_eve.planning.vision_language import plan_stage
from lit_eve.running.directory import RunDirectory
from lit_eve.running.feed import num_steps, num_workers
from lit_eve.running.kinds.kind import Feed, Kind, prepare_datasets
from lit_eve.running.progress import progress_line
from lit_eve.schema import VisionLanguageExperiment
from lit_eve.schema.language_models import BytesText, TrainedText
from lit_eve.schema.models import EncoderFree
from lit_eve.strategies import compile_blocks
from lit_eve.tracking.logger import SpoolLogger
from lit_eve.tracking.runs import Direction
from lit_eve_data.lengths import SampleEncoder
from lit_eve_data.loader import PackedLoader
from lit_eve_data.packing import PackingPlan
from lit_eve_data.passes import PackedPass
from lit_eve_data.reading import RecordView
from lit_eve_data.vocabulary import bytes_text
from lit_eve_data.working import Share

HELD_OUT_SAMPLES = 1_024
"""Most held-out samples whose loss is computed at a validation."""


@dataclass(frozen=True)
class VisionLanguage(Kind[VisionLanguageExperiment, VisionLanguageModel]):
    """An encoder-free vision-language model, trained on packed rows."""

    objective: ClassVar[tuple[str, Direction]] = ("test/all", "maximize")
    scores_title: ClassVar[str] = "held-out answers, by generation"

    encoder: SampleEncoder
    """Text and pictures to what the model reads."""

    @classmethod
    def prepare(
        cls,
        experiment: VisionLanguageExperiment,
        directory: RunDirectory,
        data: Path,
        console: Console,
    ) -> Self:
        """Datasets, text tokenizer and image cutter: what every stage reads through."""
        datasets = prepare_datasets(experiment, data, console)
        text = assemble.text(experiment.model, datasets, directory.text)
        shape = assemble.on_meta(experiment.model, text.num_tokens)
        cutter = assemble.cutter(experiment.model.images, shape.layout)
        return cls(experiment, directory, datasets, console, SampleEncoder(text, cutter))

    @classmethod
    def expect(cls, experiment: VisionLanguageExperiment, devices: int) -> list[StagePlan]:
        """Lengths are assumed."""
        model = assemble.on_meta(experiment.model, _vocabulary(experiment.model))
        return [plan_stage(experiment, model, name, devices=devices) for name in experiment.stages]

    def plan(self, name: str, devices: int) -> StagePlan:
        """Lengths are measured."""
        packing = self._packing(name)
        return plan_stage(
            self.experiment,
            self.shape(),
            name,
            devices=devices,
            packing=packing,
            steps=self._steps(name, packing),
        )

    def model(self, weights: bool = True) -> VisionLanguageModel:
        """With the decoder's pretrained weights, if it has any."""
        return assemble.encoder_free(self.experiment.model, self.encoder.text.num_tokens, weights)

    def shape(self) -> VisionLanguageModel:
        """On the meta device."""
        return assemble.on_meta(self.experiment.model, self.encoder.text.num_tokens)

    def adapt(self, model: VisionLanguageModel) -> None:
        """Recompute activations, compile the decoder's blocks."""
        if self.experiment.hardware.activation_checkpointing:
            model.language_model.recompute_activations()
        if self.experiment.hardware.compile:
            compile_blocks(model)

    def feed(self, name: str, share: Share) -> Feed:
        """Packed rows; validation reads the first dataset of the stage."""
        stage, packing = self.experiment.stages[name], self._packing(name)
        views = [assemble.view(self.datasets, data, "train") for data in stage.data]
        steps = self._steps(name, packing)
        workers = num_workers(self.experiment.hardware)
        first = next(iter(stage.data))
        held = assemble.view(self.datasets, first, "val")
        return Feed(
            PackedLoader(packing, views, self.encoder, steps, share, workers),
            PackedPass(
                held,
                self.encoder.lengths(first, held, 1.0),
                self.encoder,
                stage.tokens_per_row,
                rows_per_batch=packing.rows_per_step,
                limit=HELD_OUT_SAMPLES,
                share=Share(share.rank, share.world),
            ),
            steps,
            {
                "samples": round(steps * packing.samples_per_step),
                "tokens": steps * packing.tokens_per_step,
                "padding": round(packing.padding, 4),
                "over_long": packing.over_long,
            },
        )

    def task(self, name: str, model: VisionLanguageModel, steps: int) -> LightningModule:
        """The next token, and in an alignment stage the teacher's features."""
        return assemble.task(self.experiment, self.experiment.stages[name], model, steps)

    def callbacks(
        self, name: str, model: VisionLanguageModel, steps: int, logger: SpoolLogger
    ) -> list[Callback]:
        """A few held-out questions are answered at every validation."""
        first = next(iter(self.experiment.stages[name].data))
        view = assemble.view(self.datasets, first, "val")
        shown = [view[n] for n in range(min(self.experiment.evaluate.answers, len(view)))]
        return [ShowAnswers(Examiner(self.encoder, shown), logger)]

    def examine(
        self, name: str, model: VisionLanguageModel, limit: int | None = None
    ) -> dict[str, float]:
        """Scores on questions about scans that no training has seen; `limit` of each kind."""
        samples = []
        for data in self.experiment.stages[name].data:
            view = assemble.view(self.datasets, data, "test")
            kinds = [view.store.sidecar.kinds[code] for code in _codes(view)]
            samples += held_out(view, kinds, limit or self.experiment.evaluate.questions)
        with progress_line(self.console, f"{name}: held-out", "questions") as bar:
            return scores(Examiner(self.encoder, samples).ask(model, bar))

    def written(self, score: str, value: float) -> str:
        """Shares of right answers as percentages."""
        return f"{value:.1%}"

    def _packing(self, name: str) -> PackingPlan:
        """Which samples come when, a pure function of the data and the file."""
        stage, sources = self.experiment.stages[name], []
        for data, weight in stage.data.items():
            view = assemble.view(self.datasets, data, "train")
            with progress_line(self.console, f"measuring {data}", "samples") as bar:
                sources.append(self.encoder.lengths(data, view, weight, bar))
        return PackingPlan(sources, stage.tokens_per_row, stage.batch, self.experiment.seed)

    def _steps(self, name: str, packing: PackingPlan) -> int:
        per_step: Mapping[str, float] = {
            "steps": 1.0,
            "samples": packing.samples_per_step,
            "tokens": float(packing.tokens_per_step),
            "epochs": packing.samples_per_step / packing.samples_per_epoch,
        }
        return num_steps(self.experiment.stages[name].budget, per_step)


def _vocabulary(options: EncoderFree) -> int:
    match options.text:
        case TrainedText(vocabulary=size):
            return size
        case BytesText():
            return bytes_text().num_tokens
        case None:
            return 0  # a pretrained decoder brings its own


def _codes(view: RecordView) -> list[int]:
    return sorted(set(view.store.sidecar.kind[view.indices].tolist()))
