"""When a checkpoint is written, and which are kept."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from lit_eve.checkpoints import files
from lit_eve.checkpoints.files import Best, CheckpointError

log = logging.getLogger(__name__)


class Checkpoints(Checkpoint):
    """Saves every `every` optimizer steps, before every validation, and at the end.

    The end is the last step of the stage and the step after which another callback asked to stop
    (`trainer.should_stop`), so a stop signal loses nothing. Everything is saved inside
    `on_train_batch_end` or `on_validation_start`: there Lightning's counters resume exactly, after
    `fit` they do not.

    A periodic save that fails (full disk) is reported and training goes on: the older checkpoints
    are untouched, and the next save tries again. The last save of a stage must succeed.

    Args:
        directory: where they go, as `step-00000200.ckpt`.
        every: optimizer steps between saves.
        keep: how many stay; an old one is deleted only when `keep` newer ones are verified.
        best: a logged metric; the checkpoint with its best value stays too.
        mode: whether a small or a large value of `best` is good.

    Raises:
        ValueError: if `every` or `keep` is not positive.
    """

    def __init__(
        self,
        directory: Path | str,
        every: int,
        keep: int = 2,
        best: str | None = None,
        mode: Literal["min", "max"] = "min",
    ) -> None:
        if every < 1 or keep < 1:
            raise ValueError(
                f"checkpoints every {every} steps, keeping {keep}: both must be at least 1, or a "
                "killed run loses everything."
            )
        self.directory = Path(directory)
        self.every, self.keep = every, keep
        self.best, self.mode = best, mode
        self._saved_step = -1
        self._seen_step = 0
        self._at_boundary = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start counting from the resumed step; clear what a killed save left behind."""
        self._seen_step = self._saved_step = trainer.global_step
        if trainer.is_global_zero and self.directory.is_dir():
            files.remove_leftovers(self.directory)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Save if an optimizer step has just been made and it is one to save after."""
        step = trainer.global_step
        self._at_boundary, self._seen_step = step != self._seen_step, step
        final = trainer.should_stop or _is_last_step(trainer)
        if final and step != self._saved_step:
            self._warn_if_fails(trainer, _finish)  # an older one; the last must still be tried
            self._save(trainer)
            _finish(trainer)
        elif self._at_boundary and step % self.every == 0:
            self._save_or_warn(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Whatever happens during validation costs no training step."""
        if self._at_boundary and trainer.global_step != self._saved_step:
            self._save_or_warn(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put this step's checkpoint on record if its metric is the best so far.

        Raises:
            ValueError: if the metric was not logged.
        """
        if self.best is None or trainer.sanity_checking or trainer.global_step == 0:
            return
        logged = trainer.callback_metrics
        if self.best not in logged:
            raise ValueError(
                f"the best checkpoint is to be chosen by {self.best!r}, which was not logged. "
                f"Choose one of {', '.join(sorted(logged)) or 'the metrics that validation logs'}."
            )
        value = float(logged[self.best])
        self._warn_if_fails(trainer, _finish)  # only what is whole goes on record
        if trainer.is_global_zero and self._saved_step == trainer.global_step:
            self._record_best(trainer, value)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Wait for a checkpoint that is still being written."""
        _finish(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Likewise after an exception, of which the other ranks may know nothing."""
        for writer in (trainer.strategy, trainer.strategy.checkpoint_io):
            finish = getattr(writer, "finish_alone", None) or getattr(writer, "finish", None)
            if finish is not None:
                finish()

    def _record_best(self, trainer: Trainer, value: float) -> None:
        before = files.read_best(self.directory)
        sign = 1.0 if self.mode == "min" else -1.0
        best = math.inf
        if before is not None and before.metric == self.best:
            best = sign * before.value
        if sign * value < best:
            name = files.checkpoint_name(trainer.global_step)
            if not files.manifest_path(self.directory / name).is_file():
                return
            files.write_best(self.directory, Best(name, str(self.best), value))

    def _save_or_warn(self, trainer: Trainer) -> None:
        self._warn_if_fails(trainer, _finish)  # the one before, if it is still being written
        self._warn_if_fails(trainer, self._save)

    def _warn_if_fails(self, trainer: Trainer, action: Callable[[Trainer], None]) -> None:
        try:
            action(trainer)
        except CheckpointError as error:
            if trainer.is_global_zero:
                log.error("%s Training goes on; the next checkpoint tries again.", error)

    def _save(self, trainer: Trainer) -> None:
        trainer.save_checkpoint(self.directory / files.checkpoint_name(trainer.global_step))
        self._saved_step = trainer.global_step
        if trainer.is_global_zero:
            best = files.read_best(self.directory)
            protected = self.directory / best.checkpoint if best is not None else None
            files.prune(self.directory, self.keep, protected)


def _is_last_step(trainer: Trainer) -> bool:
    if trainer.global_step == trainer.max_steps:
        return True
    return trainer.is_last_batch and trainer.current_epoch + 1 == trainer.max_epochs


def _finish(trainer: Trainer) -> None:
    """Wait for background writing; if it failed on one rank, all of them raise."""
    finish = getattr(trainer.strategy, "finish_saving", None) or getattr(
        trainer.strategy.checkpoint_io, "finish", None
    )
    if finish is not None:
        finish()
