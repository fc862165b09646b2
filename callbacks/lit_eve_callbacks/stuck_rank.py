"""A process that stands still says where, and ends, so that its launcher can end or restart all."""

from __future__ import annotations

import faulthandler
import logging
import os
import sys
import threading
import time
from typing import Any, TextIO

from lightning.pytorch import Callback, LightningModule, Trainer

log = logging.getLogger(__name__)

EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: try again later


class StuckRank(Callback):
    """Watches from a thread that steps go on.

    When no batch of training or validation has ended for `seconds`, every thread's stack is written
    and the process exits: a rank that waits in a collective can neither be woken nor save, and its
    last checkpoint is whole. Saving and validation count as progress only when they end, so give
    more than the longest of them takes.

    Args:
        seconds: how long may pass.
        stacks: where the stacks go, a real file; standard error if None.

    Raises:
        ValueError: if `seconds` is not positive.
    """

    def __init__(self, seconds: float, stacks: TextIO | None = None) -> None:
        if seconds <= 0:
            raise ValueError(f"a limit of {seconds} seconds would end every run: give more.")
        self.seconds, self.stacks = seconds, stacks
        self._beat = 0.0
        self._where = "before the first batch"
        self._done = threading.Event()
        self._thread: threading.Thread | None = None
        self._rank = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start watching."""
        self._rank = trainer.global_rank
        self._alive("before the first batch")
        self._done.clear()
        self._thread = threading.Thread(target=self._watch, name="stuck-rank", daemon=True)
        self._thread.start()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *arguments: Any
    ) -> None:
        """A training batch has ended."""
        self._alive(f"after step {trainer.global_step}")

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *arguments: Any
    ) -> None:
        """A validation batch has ended."""
        self._alive(f"in validation after step {trainer.global_step}")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop watching."""
        self._stop()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Stop watching."""
        self._stop()

    def _alive(self, where: str) -> None:
        self._beat, self._where = time.monotonic(), where

    def _stop(self) -> None:
        self._done.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _watch(self) -> None:
        while not self._done.wait(min(self.seconds / 4, 10.0)):
            silent = time.monotonic() - self._beat
            if silent > self.seconds:
                self._give_up(silent)

    def _give_up(self, silent: float) -> None:
        log.error(
            "rank %d has stood still for %.0f s %s; its stacks follow. The process ends now; "
            "`lit-eve resume` goes on from the last checkpoint.",
            self._rank,
            silent,
            self._where,
        )
        faulthandler.dump_traceback(self.stacks or sys.stderr, all_threads=True)
        os._exit(EXIT_CODE)
