"""The first batch of a stage as a picture, once per stage: what the model really gets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lightning import Callback, LightningModule, Trainer
from PIL import Image
from rich.console import Console

from lit_eve.running.directory import RunDirectory
from lit_eve.running.kinds import kind_of
from lit_eve.schema import Experiment
from lit_eve.tracking.logger import SpoolLogger
from lit_eve_data.loading.working import ALONE

KEY = "train/batch"


class ShowBatch(Callback):
    """Draws the first batch of a stage.

    Args:
        draw: makes a picture of a batch.
        logger: takes it.
    """

    def __init__(self, draw: Callable[[Any], Image.Image], logger: SpoolLogger) -> None:
        self._draw, self._logger = draw, logger

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """At the very first step; a stage that is resumed has its picture."""
        if trainer.is_global_zero and trainer.global_step == 0 and batch_idx == 0:
            self._logger.log_images(KEY, 0, [self._draw(batch)])


def first_batch(
    experiment: Experiment, stage: str | None, data: Path, console: Console
) -> tuple[str, Image.Image]:
    """What a stage will train on first, without a run.

    Args:
        experiment: of any kind.
        stage: its name; None: the first that trains.
        data: root of prepared datasets.
        console: what the user sees.

    Returns:
        The stage's name and the picture.

    Raises:
        ValueError: if no stage of that name trains.
    """
    name = stage or next(iter(experiment.trained))
    if name not in experiment.trained:
        raise ValueError(f"no stage {name!r} trains: choose among {', '.join(experiment.trained)}.")
    with TemporaryDirectory() as folder:
        kind = kind_of(experiment).prepare(experiment, RunDirectory(Path(folder)), data, console)
        return name, kind.drawn(name, next(iter(kind.feed(name, ALONE).loader)))
