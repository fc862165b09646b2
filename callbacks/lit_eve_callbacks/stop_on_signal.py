"""Ctrl-C, SIGTERM and SIGUSR1 end a run after the current optimizer step, on every rank at once.

Lightning's own handler talks to the other ranks from inside the signal handler; a signal that only
one rank gets hangs them all (Lightning #20806), and with several ranks it asks every rank before
every batch, which waits for the device (Lightning #21487). Here a rank that got a signal says so in
a vote on the host that runs beside the step and is read one step later: nobody waits, and all
ranks stop after the same step.
"""

from __future__ import annotations

import logging
import signal
import threading
from types import FrameType
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

log = logging.getLogger(__name__)

SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)
)


class Stopped(Exception):  # noqa: N818  # nothing went wrong
    """Leaves `fit` when a signal came during validation; training's last step is saved."""


class StopOnSignal(Callback):
    """Turns a signal into an orderly end: finish the optimizer step, save, leave `fit`.

    Saving is the checkpoint callback's: it sees `trainer.should_stop`. During validation of a
    one-process run there is no step to finish, so `fit` is left through `Stopped` at once; with
    several processes validation ends first, since ranks may hold different numbers of batches. A
    second Ctrl-C stops without waiting.

    Attributes:
        signal: what ended the run (`SIGTERM`, ...), or None; the same on all ranks.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._received: signal.Signals | None = None
        self._before: dict[int, Any] = {}
        self._vote: _Vote | None = None
        self._seen_step = 0
        self._validation_limit: float | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take over the signals; Lightning has just taken them, and gives them back itself."""
        self._seen_step = trainer.global_step
        if trainer.world_size > 1:
            self._vote = _Vote()
            # Lightning 2.6 has no public switch for its own question before every batch.
            trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = _nothing  # type: ignore[method-assign]
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                self._before[number] = signal.signal(number, self._handle)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Stop here if a signal came and an optimizer step is complete."""
        received = self._received
        if self._vote is not None:
            received = self._vote.exchange(received)
        stepped = trainer.global_step != self._seen_step
        self._seen_step = trainer.global_step
        if received is None:
            return
        self._received = received
        if stepped:
            self.signal = received
            trainer.should_stop = True
            # Lightning validates once more when it is told to stop; whoever sent the signal waits.
            self._validation_limit = trainer.limit_val_batches
            trainer.limit_val_batches = 0

    def on_validation_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Leave a validation that runs inside training, if nobody else has to leave with us.

        Raises:
            Stopped: if a signal came.
        """
        if self._received is not None and self._vote is None and not trainer.sanity_checking:
            self.signal = self._received
            raise Stopped(f"{self.signal.name} during validation after step {trainer.global_step}")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the signals back while Lightning's are the ones to return to."""
        if self._vote is not None:
            self._vote.close()
        self._release(trainer)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Likewise; the other ranks may be gone, so the last vote is not waited for."""
        self._release(trainer)

    def _release(self, trainer: Trainer) -> None:
        if self._vote is not None:
            self._vote = None
            del trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor  # the class's shows again
        if threading.current_thread() is threading.main_thread():
            for number, handler in self._before.items():
                signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        self._before = {}
        if self._validation_limit is not None:
            trainer.limit_val_batches = self._validation_limit
            self._validation_limit = None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        """Only remember: anything more may interrupt a step at any point."""
        if self._received is not None and number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            raise KeyboardInterrupt
        first, self._received = self._received is None, signal.Signals(number)
        if first:
            again = " (Ctrl-C once more stops at once)" if number == signal.SIGINT else ""
            log.warning(
                "%s: finishing this step, then saving and stopping%s.", self._received.name, again
            )


class _Vote:
    """Which signal has reached any rank: a collective on the host, one step behind.

    A group of its own, so that it never stands between two collectives of the training.
    """

    def __init__(self) -> None:
        self._group = torch.distributed.new_group(backend="gloo")
        self._flag: Tensor | None = None
        self._work: Any = None

    def exchange(self, received: signal.Signals | None) -> signal.Signals | None:
        """Read the vote of the step before, start this step's."""
        agreed = self._read()
        self._flag = torch.tensor([0 if received is None else int(received)])
        self._work = torch.distributed.all_reduce(
            self._flag, torch.distributed.ReduceOp.MAX, group=self._group, async_op=True
        )
        return agreed

    def close(self) -> None:
        """Wait for the last vote, so that no rank leaves another one waiting."""
        self._read()

    def _read(self) -> signal.Signals | None:
        if self._work is None or self._flag is None:
            return None
        self._work.wait()
        number = int(self._flag)
        return signal.Signals(number) if number else None


def _nothing() -> None:
    pass
