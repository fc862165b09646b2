"""Progress bars with rate and time left; plain lines where there is no terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from lightning import Callback, LightningModule, Trainer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

LINE_SECONDS = 10.0
"""Without a terminal, one line at most this often."""


class ProgressLine:
    """One bar: how far, how fast, how long still, and what was last measured."""

    def __init__(self, console: Console, label: str, total: int, unit: str) -> None:
        self.console, self.label, self.total, self.unit = console, label, total, unit
        self.started, self.first, self.printed = time.monotonic(), 0, 0.0
        self.bar: Progress | None = None
        if console.is_terminal:
            self.bar = Progress(
                TextColumn("[bold]{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=console,
            )
            self.task = self.bar.add_task(label, total=total, rate="", note="")
            self.bar.start()

    def resume_at(self, done: int) -> None:
        """Start counting the rate from `done`."""
        self.first, self.started = done, time.monotonic()

    def update(self, done: int, note: str = "") -> None:
        """Show that `done` of the total are through."""
        seconds = time.monotonic() - self.started
        rate = (done - self.first) / seconds if seconds > 0 else 0.0
        shown = f"{rate:.1f} {self.unit}/s"
        if self.bar is not None:
            self.bar.update(self.task, completed=done, rate=shown, note=note)
        elif seconds - self.printed >= LINE_SECONDS or done >= self.total:
            self.printed = seconds
            left = (self.total - done) / rate if rate else 0.0
            line = f"{self.label}: {done}/{self.total} {self.unit}, {shown}, {left:.0f} s left"
            self.console.print(f"{line}  {note}", highlight=False)

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self.bar is not None:
            self.bar.stop()


@contextmanager
def progress_line(console: Console, label: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """A bar for a loop: the value, called with how many are done and of how many, moves it."""
    line: ProgressLine | None = None

    def report(done: int, total: int) -> None:
        nonlocal line
        if line is None:  # nothing is shown of work that turns out to be done already
            line = ProgressLine(console, label, total, unit)
        line.update(done)

    try:
        yield report
    finally:
        if line is not None:
            line.close()


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
