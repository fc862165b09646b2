"""Runs of what a vision-language model starts from: a decoder alone, a small CLIP."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from math import exp
from pathlib import Path
from typing import ClassVar, Generic, Self

import torch
from lightning import LightningModule
from rich.console import Console

from lit_eve import assemble
from lit_eve.assemble import foundations
from lit_eve.models.contrastive import LAYOUT, ContrastiveModel, found
from lit_eve.models.text_model import NO_LAYOUT, TextModel
from lit_eve.planning.foundations import plan_stage
from lit_eve.planning.plan import StagePlan
from lit_eve.running.directory import RunDirectory
from lit_eve.running.kinds.kind import E, M
from lit_eve.running.kinds.packed import Packed, adapt_decoder
from lit_eve.running.preparing import prepare_datasets
from lit_eve.schema import ContrastiveExperiment, TextExperiment
from lit_eve.schema.images import Images
from lit_eve.tasks.contrastive import ContrastiveTask
from lit_eve.tasks.language import LanguageTask
from lit_eve.tracking.runs import Direction
from lit_eve_data.batches import PackedBatch
from lit_eve_data.encoding.vocabulary import bytes_text
from lit_eve_data.loading.working import ALONE
from lit_eve_data.packing.lengths import SampleEncoder, TextEncoder


@dataclass(frozen=True)
class Foundation(Packed[E, M], Generic[E, M]):
    """What leaves a folder that other experiments start from."""

    def folder(self, to: str | None, name: str) -> Path:
        """Where the trained model goes: where the file says, or into the run."""
        return Path(to) if to else self.directory.stage(name) / "pretrained"

    @abstractmethod
    def write(self, model: M, folder: Path) -> None:
        """Write the folder."""

    def leave(self, name: str, model: M) -> None:
        """The folder, after the last stage."""
        if name != list(self.experiment.stages)[-1]:
            return
        to = getattr(self.experiment.model, "to", None)
        folder = self.folder(None if to is None else to.resolved(), name)
        self.write(model, folder)
        self.console.print(f"  left for others to start from: {folder}", highlight=False)


@dataclass(frozen=True)
class TextOnly(Foundation[TextExperiment, TextModel]):
    """A language model, trained on every word of packed texts."""

    objective: ClassVar[tuple[str, Direction]] = ("test/perplexity", "minimize")
    scores_title: ClassVar[str] = "held-out texts"

    @classmethod
    def prepare(
        cls, experiment: TextExperiment, directory: RunDirectory, data: Path, console: Console
    ) -> Self:
        """Datasets and text tokenizer."""
        datasets = prepare_datasets(experiment, data, console)
        text = assemble.text(experiment.model, datasets, directory.text)
        encoder = TextEncoder(text, assemble.cutter(Images(), NO_LAYOUT))
        return cls(experiment, directory, datasets, console, encoder)

    @classmethod
    def expect(cls, experiment: TextExperiment, devices: int) -> list[StagePlan]:
        """Lengths are assumed."""
        tokens = assemble.num_tokens(experiment.model.text)
        model = foundations.on_meta_text(experiment.model, tokens)
        return [plan_stage(experiment, model, name, devices=devices) for name in experiment.stages]

    def plan(self, name: str, devices: int) -> StagePlan:
        """Lengths are measured."""
        packing = self.packing(name)
        steps = self.steps(name, packing)
        return plan_stage(
            self.experiment, self.shape(), name, devices=devices, packing=packing, steps=steps
        )

    def model(self, weights: bool = True) -> TextModel:
        """With the decoder's pretrained weights, if it has any."""
        tokens = self.encoder.text.num_tokens
        return foundations.text_model(self.experiment.model, tokens, weights)

    def shape(self) -> TextModel:
        """On the meta device."""
        return foundations.on_meta_text(self.experiment.model, self.encoder.text.num_tokens)

    def adapt(self, model: TextModel) -> None:
        """Recompute activations, compile the decoder's blocks."""
        adapt_decoder(model, self.experiment.hardware)

    def task(self, name: str, model: TextModel, steps: int) -> LightningModule:
        """The next token."""
        stage = self.experiment.stages[name]
        return LanguageTask(model, assemble.rates(stage, steps), assemble.adamw(stage.optimizer))

    @torch.no_grad()
    def examine(self, name: str, model: TextModel, limit: int | None = None) -> dict[str, float]:
        """Perplexity of a token of every dataset's test texts, and of all."""
        limit = limit or self.experiment.evaluate.samples
        device = model.language_model.head_weight.device
        whole, scores = torch.zeros(2, dtype=torch.float64), dict[str, float]()
        data = list(self.experiment.stages[name].data)
        for entry in data:
            own = torch.zeros(2, dtype=torch.float64)
            for batch in self.held_out(name, entry, "test", limit, 16, ALONE):
                total, count = model.next_token_loss(batch.to(device))
                own += torch.stack([total.double().cpu(), count.double().cpu()])
            whole += own
            if len(data) > 1:
                scores[f"{entry}/perplexity"] = exp(float(own[0] / own[1].clamp(min=1)))
        return {"perplexity": exp(float(whole[0] / whole[1].clamp(min=1))), **scores}

    def write(self, model: TextModel, folder: Path) -> None:
        """The decoder and its tokenizer."""
        foundations.write_language_model(model, self.encoder.text, folder)


@dataclass(frozen=True)
class ContrastiveRun(Foundation[ContrastiveExperiment, ContrastiveModel]):
    """A small CLIP, trained on packed pictures and captions."""

    objective: ClassVar[tuple[str, Direction]] = ("test/found", "maximize")
    scores_title: ClassVar[str] = "captions of held-out pictures, found among those of a batch"

    @classmethod
    def prepare(
        cls,
        experiment: ContrastiveExperiment,
        directory: RunDirectory,
        data: Path,
        console: Console,
    ) -> Self:
        """Datasets, text tokenizer and image cutter."""
        datasets = prepare_datasets(experiment, data, console)
        text = assemble.text(experiment.model, datasets, directory.text)
        cutter = assemble.cutter(experiment.model.images, LAYOUT)
        return cls(experiment, directory, datasets, console, SampleEncoder(text, cutter))

    @classmethod
    def expect(cls, experiment: ContrastiveExperiment, devices: int) -> list[StagePlan]:
        """Lengths are assumed."""
        model = foundations.on_meta_contrastive(experiment.model, bytes_text())
        return [plan_stage(experiment, model, name, devices=devices) for name in experiment.stages]

    def plan(self, name: str, devices: int) -> StagePlan:
        """Lengths are measured."""
        packing = self.packing(name)
        steps = self.steps(name, packing)
        return plan_stage(
            self.experiment, self.shape(), name, devices=devices, packing=packing, steps=steps
        )

    def model(self, weights: bool = True) -> ContrastiveModel:
        """Random: nothing is pretrained."""
        return foundations.contrastive(self.experiment.model, self.encoder.text)

    def shape(self) -> ContrastiveModel:
        """On the meta device."""
        return foundations.on_meta_contrastive(self.experiment.model, self.encoder.text)

    def task(self, name: str, model: ContrastiveModel, steps: int) -> LightningModule:
        """Which caption belongs to which picture."""
        stage = self.experiment.stages[name]
        return ContrastiveTask(model, assemble.rates(stage, steps), assemble.adamw(stage.optimizer))

    @torch.no_grad()
    def examine(
        self, name: str, model: ContrastiveModel, limit: int | None = None
    ) -> dict[str, float]:
        """Share of test pictures whose caption is found among those of a batch, and its size."""
        limit = limit or self.experiment.evaluate.samples
        right = seen = batches = 0
        for entry in self.experiment.stages[name].data:
            rows = self.packing(name).rows_per_step
            for batch in self.held_out(name, entry, "test", limit, rows, ALONE):
                right += int(found(*model(_moved(batch, model))))
                seen, batches = seen + batch.num_samples, batches + 1
        return {"found": right / max(1, seen), "among": seen / max(1, batches)}

    def write(self, model: ContrastiveModel, folder: Path) -> None:
        """The CLIP, its tokenizer and its way of seeing."""
        foundations.write_clip(model, self.experiment.model, self.encoder.text, folder)

    def written(self, score: str, value: float) -> str:
        """A share as a percentage, a size as it is."""
        return f"{value:.1%}" if score == "found" else f"{value:.0f}"


def _moved(batch: PackedBatch, model: ContrastiveModel) -> PackedBatch:
    return batch.to(model.clip.logit_scale.device)
