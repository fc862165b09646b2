"""Progress of a training: a bar for every stage; see `bars` for those of loops."""

from __future__ import annotations

from typing import Any

from lightning import Callback, LightningModule, Trainer
from rich.console import Console

from lit_eve.running.bars import ProgressLine, progress_line

__all__ = ["ProgressLine", "StageProgress", "progress_line"]


class StageProgress(Callback):
    """One bar for a stage, in optimizer steps, with the newest loss beside it."""

    def __init__(self, console: Console, stage: str, steps: int, every: int = 5) -> None:
        self.console, self.stage, self.steps, self.every = console, stage, steps, every
        self.line: ProgressLine | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the bar where the stage stands."""
        if trainer.is_global_zero:
            self.line = ProgressLine(self.console, self.stage, self.steps, "steps")
            self.line.resume_at(trainer.global_step)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Move the bar every few steps: reading the loss makes an accelerator wait."""
        step = trainer.global_step
        if self.line is None or (step % self.every and step < self.steps):
            return
        loss = outputs.get("train/loss") if isinstance(outputs, dict) else None
        note = "" if loss is None else f"loss {float(loss):.3f}"
        held_out = trainer.callback_metrics.get("val/loss")
        if held_out is not None:
            note += f"  held-out {float(held_out):.3f}"
        self.line.update(step, note)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the bar."""
        if self.line is not None:
            self.line.close()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Give the terminal back before the error is printed."""
        self.on_train_end(trainer, pl_module)
