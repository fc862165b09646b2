"""A tokenizer small enough to train in a test, and loaders of made-up images."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import Logger
from torch import Tensor

from lit_eve.losses.likelihood import Likelihood, logit_laplace, squared
from lit_eve.models.tokenizers.codebook import EmaCodebook, Liveliness
from lit_eve.models.tokenizers.convolutional import (
    ConvolutionalDecoder,
    ConvolutionalEncoder,
    Layout,
)
from lit_eve.models.tokenizers.discriminator import PatchDiscriminator
from lit_eve.models.tokenizers.gumbel import GumbelQuantizer
from lit_eve.models.tokenizers.image_tokenizer import ImageTokenizer
from lit_eve.models.tokenizers.pixels import LogitLaplacePixels, PlainPixels
from lit_eve.models.tokenizers.quantizer import Quantizer
from lit_eve.models.tokenizers.vector import VectorQuantizer
from lit_eve.tasks.optimizers import AdamWOptions
from lit_eve.tasks.tokenizer import TokenizerTask
from lit_eve_data.batches import ImageBatch
from tests.tiny_training import trainer

LAYOUT = Layout(8, (1, 2), 1)


def vector(codes: int = 8) -> Quantizer:
    return VectorQuantizer(EmaCodebook(codes, 4, liveliness=Liveliness(start="random")))


def tokenizer(
    quantizer: Quantizer, likelihood: Likelihood = squared, critic: bool = False
) -> ImageTokenizer:
    torch.manual_seed(0)
    pixels = LogitLaplacePixels() if likelihood is logit_laplace else PlainPixels()
    return ImageTokenizer(
        ConvolutionalEncoder(quantizer.in_channels, LAYOUT),
        quantizer,
        ConvolutionalDecoder(quantizer.out_channels, LAYOUT, pixels.channels),
        pixels,
        PatchDiscriminator(8, 1) if critic else None,
    )


def gumbel_task() -> TokenizerTask:
    torch.manual_seed(0)
    return task(tokenizer(GumbelQuantizer(8, 4, 12), logit_laplace), logit_laplace)


def vector_task(rate: float = 1e-2) -> TokenizerTask:
    torch.manual_seed(0)
    return task(tokenizer(vector()), squared, rate)


def task(
    model: ImageTokenizer, likelihood: Likelihood = squared, rate: float = 1e-2, **options: Any
) -> TokenizerTask:
    parts = dict.fromkeys(["encoder", "quantizer", "decoder"], lambda step: rate)
    if not list(model.quantizer.parameters()):
        del parts["quantizer"]
    if model.discriminator is not None:
        parts["discriminator"] = lambda step: rate
    return TokenizerTask(model, likelihood, parts, AdamWOptions(weight_decay=1e-4), **options)


def image(index: int, height: int = 16, width: int = 12) -> Tensor:
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(index))


class Images:
    """Batches with an exact position; `sizes` go round."""

    def __init__(
        self, batches: int = 6, batch: int = 2, sizes: Sequence[tuple[int, int]] = ((16, 12),)
    ) -> None:
        self.batches, self.batch, self.sizes = batches, batch, sizes
        self.position = 0

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[ImageBatch]:
        self.position %= self.batches
        while self.position < self.batches:
            first = self.position * self.batch
            size = self.sizes[self.position % len(self.sizes)]
            self.position += 1
            yield ImageBatch(torch.stack([image(first + n, *size) for n in range(self.batch)]))

    def state_dict(self) -> dict[str, int]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.position = state["position"]


class Records(Logger):
    """A logger that keeps what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.metrics: list[tuple[int, dict[str, float]]] = []
        self.pictures: list[tuple[str, int, list[Any], list[str], int | None]] = []

    @property
    def name(self) -> str:
        return "records"

    @property
    def version(self) -> int:
        return 0

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        self.metrics.append((step or 0, dict(metrics)))

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        pass

    def log_images(
        self,
        key: str,
        step: int,
        pictures: Sequence[Any],
        captions: Sequence[str] = (),
        columns: int | None = None,
    ) -> None:
        self.pictures.append((key, step, list(pictures), list(captions), columns))

    def of(self, name: str) -> dict[int, float]:
        """Values of one metric by step."""
        return {step: values[name] for step, values in self.metrics if name in values}


def saving(directory: Path, every: int = 3) -> ModelCheckpoint:
    """Writes `step=<n>.ckpt`."""
    return ModelCheckpoint(directory, "{step}", every_n_train_steps=every, save_top_k=-1)


def fit(
    module: LightningModule,
    callbacks: Sequence[Callback] = (),
    records: Records | None = None,
    loader: Images | None = None,
    **options: Any,
) -> Trainer:
    """Train on made-up images, as `tiny_training` does on made-up vectors."""
    settings: dict[str, Any] = {
        "max_steps": 6,
        "logger": records or False,
        "log_every_n_steps": 1,
    } | options
    resume = settings.pop("resume", None)
    run = trainer(list(callbacks), **settings)
    with warnings.catch_warnings():
        for harmless in (
            ".*does not have many workers.*",
            ".*isinstance.treespec, LeafSpec.*",
            ".*exists and is not empty.*",
        ):
            warnings.filterwarnings("ignore", harmless)
        run.fit(module, loader or Images(), Images(2), ckpt_path=resume)
    return run
