"""A gradient that is not a number moves no weight, and a run of them ends the training."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

log = logging.getLogger(__name__)


class NonFiniteError(RuntimeError):
    """Training has broken down; the weights are those before it did."""


class NonFiniteGuard(Callback):
    """Skips optimizer steps whose gradient has a NaN or an infinity, and counts them.

    A loss that is not finite makes such a gradient. The norm of the whole gradient, over all
    shards, decides, so every rank skips the same steps. A fused optimizer skips on the device and
    nobody waits for it; any other one is asked on the host. With fp16 the gradient scaler skips by
    itself and this callback stands aside.

    Args:
        directory: where the batch goes that ended the run.
        patience: skipped steps in a row that end the run.
        every: steps between two looks at what the device has counted; on the host, every step.

    Raises:
        ValueError: if `patience` or `every` is not positive.
    """

    def __init__(self, directory: Path | str, patience: int = 10, every: int = 10) -> None:
        if patience < 1 or every < 1:
            raise ValueError(
                f"patience {patience} and every {every} must both be at least 1: the first bad "
                "step can only be skipped once it is there."
            )
        self.directory = Path(directory)
        self.patience, self.every = patience, every
        self._skipped: Tensor | None = None
        self._in_a_row: Tensor | None = None
        self._batch: Any = None
        self._reported = 0

    def state_dict(self) -> dict[str, int]:
        """The count goes on after a resume."""
        return {"skipped": int(self._skipped) if self._skipped is not None else self._reported}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the count."""
        self._reported = int(state_dict["skipped"])
        self._skipped = None

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Hold on to the batch while its step lasts."""
        self._batch = batch

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Decide whether this step may happen.

        Raises:
            NonFiniteError: if too many in a row may not.
        """
        if getattr(trainer.precision_plugin, "scaler", None) is not None:
            return
        norm = gradient_norm(p for group in optimizer.param_groups for p in group["params"])
        if norm is None:
            return
        bad = ~torch.isfinite(norm)
        self._count(bad)
        if all(group.get("fused") for group in optimizer.param_groups):
            optimizer.found_inf = bad.to(torch.float32)  # type: ignore[attr-defined]
            due = trainer.global_step % self.every == 0
        else:
            due = bool(bad)
            if due:
                optimizer.zero_grad(set_to_none=True)
        if due:
            self._look(trainer)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Let go of the batch."""
        self._batch = None

    def _count(self, bad: Tensor) -> None:
        if self._skipped is None or self._in_a_row is None:
            self._skipped = torch.full_like(bad, self._reported, dtype=torch.int64)
            self._in_a_row = torch.zeros_like(self._skipped)
        self._skipped = self._skipped + bad
        self._in_a_row = (self._in_a_row + 1) * bad

    def _look(self, trainer: Trainer) -> None:
        assert self._skipped is not None
        assert self._in_a_row is not None
        skipped, in_a_row = int(self._skipped), int(self._in_a_row)
        step = trainer.global_step
        if skipped > self._reported:
            self._reported = skipped
            if trainer.is_global_zero:
                log.warning(
                    "step %d: the gradient is not finite, the step is skipped (%d so far).",
                    step,
                    skipped,
                )
            for logger in trainer.loggers:
                logger.log_metrics({"train/skipped_steps": skipped}, step=step)
        if in_a_row >= self.patience:
            name = f"non-finite-step-{step:08d}-rank-{trainer.global_rank}.pt"
            self._stop(self.directory / name, in_a_row, step)

    def _stop(self, file: Path, in_a_row: int, step: int) -> None:
        saved = f"Its batch is in {file}."
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            torch.save(plain(self._batch), file)
        except OSError as error:
            saved = f"Its batch could not be saved ({error.strerror})."
        raise NonFiniteError(
            f"the gradient was not finite for {in_a_row} steps in a row up to step {step}; no "
            f"weight has moved since. {saved} Lower the learning rate, lengthen the warm-up, or "
            "train in bf16 or float32; then resume."
        )


def gradient_norm(parameters: Iterable[torch.nn.Parameter]) -> Tensor | None:
    """The 2-norm of all gradients over all shards, a scalar on the device; None without any."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not gradients:
        return None
    norm = torch.nn.utils.get_total_norm(gradients)
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


def plain(value: Any) -> Any:
    """Tensors on the host and plain containers: it loads with `weights_only=True`."""
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value if isinstance(value, int | float | str | bool | None) else repr(value)
