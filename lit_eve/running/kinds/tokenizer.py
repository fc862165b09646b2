"""Runs of an image tokenizer: pictures in, the same pictures out, codes between."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar, Self

import torch
from lightning import Callback, LightningModule
from PIL import Image
from rich.console import Console
from torch import Tensor

from lit_eve import assemble
from lit_eve.assemble import tokenizers
from lit_eve.checkpoints import read_weights
from lit_eve.checkpoints.atomic import load_verified
from lit_eve.models.tokenizers.image_tokenizer import ImageTokenizer, evaluating
from lit_eve.planning.plan import StagePlan
from lit_eve.planning.tokenizer import plan_stage
from lit_eve.running.directory import RunDirectory
from lit_eve.running.feed import num_steps, num_workers
from lit_eve.running.kinds.kind import Feed, Kind
from lit_eve.running.preparing import prepare_datasets
from lit_eve.running.progress import progress_line
from lit_eve.running.weights import load_weights
from lit_eve.schema import TokenizerExperiment
from lit_eve.tasks.tokenizer_scores import HeldOutScores
from lit_eve.tracking.logger import SpoolLogger
from lit_eve.tracking.runs import Direction
from lit_eve_callbacks.weight_averaging import averaged_weights
from lit_eve_data.batches import ImageBatch
from lit_eve_data.loading.image_loader import ImageLoader, ImagePass, ImageView
from lit_eve_data.loading.working import ALONE, Share
from lit_eve_data.packing.buckets import BucketPlan
from lit_eve_data.viewing.batches import draw_images

HELD_OUT_IMAGES = 1_024
"""Most held-out images that are rebuilt at a validation, shared by the datasets of a stage."""
EXAMINED = 16
"""Pictures at a time when weights are examined that no stage of the run has trained."""


@dataclass(frozen=True)
class Passes:
    """Several passes, one after another."""

    parts: Sequence[ImagePass]

    def __len__(self) -> int:
        """Batches of all of them."""
        return sum(len(part) for part in self.parts)

    def __iter__(self) -> Iterator[ImageBatch]:
        for part in self.parts:
            yield from part


@dataclass(frozen=True)
class Tokenizer(Kind[TokenizerExperiment, ImageTokenizer]):
    """An image tokenizer, trained on batches of pictures of one size."""

    objective: ClassVar[tuple[str, Direction]] = ("test/psnr", "maximize")
    scores_title: ClassVar[str] = "held-out pictures, rebuilt from their codes"

    @classmethod
    def prepare(
        cls, experiment: TokenizerExperiment, directory: RunDirectory, data: Path, console: Console
    ) -> Self:
        """The datasets."""
        return cls(experiment, directory, prepare_datasets(experiment, data, console), console)

    @classmethod
    def expect(cls, experiment: TokenizerExperiment, devices: int) -> list[StagePlan]:
        """How many pictures an epoch has is not known."""
        model = _shape(experiment)
        return [plan_stage(experiment, model, name, devices=devices) for name in experiment.trained]

    def plan(self, name: str, devices: int) -> StagePlan:
        """With the steps that the data makes of the stage's length."""
        steps = self._steps(name, self._buckets(name))
        return plan_stage(self.experiment, self.shape(), name, devices=devices, steps=steps)

    def model(self, weights: bool = True) -> ImageTokenizer:
        """Random: no tokenizer starts from published weights."""
        return tokenizers.build_tokenizer(self.experiment.model)

    def shape(self) -> ImageTokenizer:
        """On the meta device."""
        return _shape(self.experiment)

    def feed(self, name: str, share: Share) -> Feed:
        """Pictures by buckets of one size; validation reads all datasets of the stage."""
        stage, buckets = self.experiment.trained[name], self._buckets(name)
        steps = self._steps(name, buckets)
        workers = num_workers(self.experiment.hardware)
        limit = max(1, HELD_OUT_IMAGES // len(stage.data))
        held = [self._pass(data, "val", stage.batch, limit, share) for data in stage.data]
        return Feed(
            ImageLoader(buckets, self._views(name), steps, share, workers),
            Passes(held),
            steps,
            share.micro_batches,
            {"samples": steps * stage.batch, "left_out": sum(buckets.left_out.values())},
        )

    def drawn(self, name: str, batch: ImageBatch) -> Image.Image:
        """Pictures side by side."""
        return draw_images(batch)

    def task(self, name: str, model: ImageTokenizer, steps: int) -> LightningModule:
        """Likelihood, the quantizer's losses, and what else the model's block asks for."""
        stage = self.experiment.trained[name]
        return tokenizers.build_task(
            self.experiment.model,
            model,
            assemble.rates(stage, steps),
            assemble.adamw(stage.optimizer),
        )

    def callbacks(
        self, name: str, model: ImageTokenizer, steps: int, logger: SpoolLogger
    ) -> list[Callback]:
        """Schedules inside the quantizer, a watch over its codes, pictures, averaged weights."""
        return list(
            tokenizers.callbacks(
                self.experiment.model,
                model,
                partial(assemble.number, steps=steps),
                self.experiment.evaluate.images,
            )
        )

    def final_weights(self, checkpoint: Path) -> Mapping[str, Tensor]:
        """The averaged weights, if the file asks for them."""
        if self.experiment.model.ema is None:
            return read_weights(checkpoint, prefix="model.")
        return averaged_weights(load_verified(checkpoint))

    def settle(self, name: str, model: ImageTokenizer) -> None:
        """Take the averaged weights."""
        if self.experiment.model.ema is not None:
            file = self.directory.weights(name)
            load_weights(model, read_weights(file), file)

    def examine(
        self, name: str, model: ImageTokenizer, limit: int | None = None
    ) -> dict[str, float]:
        """Quality and use of codes on test pictures; `limit` of each dataset."""
        trained = self.experiment.trained.get(name)
        names = list(self.datasets if trained is None else trained.data)
        batch = EXAMINED if trained is None else trained.batch
        device = next(model.parameters()).device
        whole, found = self._scores(model, device), dict[str, float]()
        with progress_line(self.console, f"{name}: held-out", "batches") as bar, evaluating(model):
            for data in names:
                own = self._scores(model, device)
                held = self._pass(data, "test", batch, limit, _share())
                for number, images in enumerate(held, 1):
                    measured = own.measure(model, images.pixels.to(device))
                    own.add(measured)
                    whole.add(measured)
                    bar(number, len(held))
                if len(names) > 1:
                    values = own.compute()
                    found |= {f"{data}/{key}": float(values[key]) for key in ("psnr", "ssim")}
        return {key: float(value) for key, value in whole.compute().items()} | found

    def _scores(self, model: ImageTokenizer, device: torch.device) -> HeldOutScores:
        likelihood = tokenizers.likelihood(self.experiment.model)
        return HeldOutScores(model.quantizer, likelihood).to(device)

    def _views(self, name: str) -> list[ImageView]:
        return [self._view(data, "train") for data in self.experiment.trained[name].data]

    def _view(self, data: str, split: str) -> ImageView:
        options = self.experiment.model
        policy = tokenizers.sizes(options.images)
        return ImageView(assemble.view(self.datasets, data, split), policy, options.cell)

    def _pass(
        self, data: str, split: str, batch: int, limit: int | None, share: Share
    ) -> ImagePass:
        return ImagePass(self._view(data, split), batch, limit, Share(share.rank, share.world))

    def _buckets(self, name: str) -> BucketPlan:
        """Which pictures come when, a pure function of the data and the file."""
        stage = self.experiment.trained[name]
        named = zip(stage.data.items(), self._views(name), strict=True)
        sources = [view.source(data, weight) for (data, weight), view in named]
        return BucketPlan(sources, stage.batch, self.experiment.seed)

    def _steps(self, name: str, buckets: BucketPlan) -> int:
        stage = self.experiment.trained[name]
        epoch = stage.batch / buckets.samples_per_epoch
        per_step = {"steps": 1.0, "samples": float(stage.batch), "epochs": epoch}
        return num_steps(stage.budget, per_step)


def _shape(experiment: TokenizerExperiment) -> ImageTokenizer:
    with torch.device("meta"):
        return tokenizers.build_tokenizer(experiment.model)


def _share() -> Share:
    """This process's share of an examination, in a run of several or alone afterwards."""
    distributed = torch.distributed
    if not distributed.is_available() or not distributed.is_initialized():
        return ALONE
    return Share(distributed.get_rank(), distributed.get_world_size())
