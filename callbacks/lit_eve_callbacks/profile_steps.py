"""A torch profiler trace of a few steps."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.profiler import ProfilerActivity, profile

log = logging.getLogger(__name__)


class ProfileSteps(Callback):
    """Writes what rank zero did from step `first` up to step `last`, for chrome://tracing.

    Args:
        first: optimizer steps done when recording starts; give the run a few to warm up.
        last: optimizer steps done when it ends.
        directory: where `trace-steps-10-15.json.gz` goes.

    Raises:
        ValueError: if there is no step between them.
    """

    def __init__(self, first: int, last: int, directory: Path | str) -> None:
        if not 0 <= first < last:
            raise ValueError(
                f"there is no step to profile from {first} to {last}: give two steps, the first at "
                "least 0 and the second larger."
            )
        self.first, self.last = first, last
        self.file = Path(directory) / f"trace-steps-{first}-{last}.json.gz"
        self._profiler: profile | None = None

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Start recording; a resumed run that is past `first` records nothing."""
        if self._profiler is None and trainer.global_step == self.first and trainer.is_global_zero:
            if self.file.exists():
                return
            activities = [ProfilerActivity.CPU]
            if torch.cuda.is_available():
                activities.append(ProfilerActivity.CUDA)
            self._profiler = profile(activities=activities)
            self._profiler.start()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *arguments: Any
    ) -> None:
        """Stop recording and write."""
        if trainer.global_step >= self.last:
            self._finish()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write what there is if training ended earlier."""
        self._finish()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Likewise."""
        self._finish()

    def _finish(self) -> None:
        recorder, self._profiler = self._profiler, None
        if recorder is None:
            return
        recorder.stop()
        self.file.parent.mkdir(parents=True, exist_ok=True)
        recorder.export_chrome_trace(str(self.file))
        log.info("trace of steps %d to %d: %s", self.first, self.last, self.file)
