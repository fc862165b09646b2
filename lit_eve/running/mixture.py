"""What a mixture of datasets really gave, beside what was asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from lightning import Callback, LightningModule, Trainer


class Mixed(Protocol):
    """A loader of several datasets."""

    @property
    def shares(self) -> Mapping[str, tuple[float, float]]:
        """Share of all samples so far that each dataset gave, and the share asked for."""


class MixtureShares(Callback):
    """Logs `data/share/NAME` and `data/asked/NAME` now and then; of one dataset nothing.

    Args:
        loader: of this process; it knows of the samples of all processes.
        every: steps between two records.
    """

    def __init__(self, loader: Mixed, every: int = 50) -> None:
        self.loader, self.every = loader, every

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """After the last micro-batch of such a step, and of the last one."""
        step = trainer.global_step
        ended = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if not ended or (step % self.every and step != trainer.max_steps):
            return
        shares = self.loader.shares
        if len(shares) < 2 or trainer.logger is None:
            return
        values = {f"data/share/{name}": given for name, (given, _) in shares.items()}
        asked = {f"data/asked/{name}": wanted for name, (_, wanted) in shares.items()}
        trainer.logger.log_metrics(values | asked, step)
