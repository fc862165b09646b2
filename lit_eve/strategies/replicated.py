"""DDP that follows `requires_grad`."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

from lightning.pytorch.strategies import DDPStrategy
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from lit_eve.strategies.saving import finish_together, together


class ReplicatedStrategy(DDPStrategy):
    """DDP whose reducer always knows every parameter that trains.

    DDP decides when it wraps a model which gradients it will average. A parameter thawed later gets
    a gradient of its own on every rank, and the ranks drift apart without a word (3e-3 after three
    AdamW steps of 1e-3). So after a change of `requires_grad` the model is wrapped again, and a
    step with a stale wrapper is an error.
    """

    _wrapped_flags: tuple[bool, ...] = ()

    def on_requires_grad_changed(self) -> None:
        """Wrap again, on all ranks at the same step."""
        module = self.lightning_module
        assert module is not None
        if not isinstance(self.model, DistributedDataParallel) or not self._is_stale():
            return
        self.model = None
        gc.collect()  # the old reducer and its autograd hooks go before the new ones come
        self.model = self._setup_model(module)
        self._register_ddp_hooks()

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Runs after the callbacks' hook of this name.

        Raises:
            RuntimeError: if `requires_grad` changed and nobody said so.
        """
        if isinstance(self.model, DistributedDataParallel) and self._is_stale():
            raise RuntimeError(
                "requires_grad changed after DDP had wrapped the model: the new parameters would "
                "not be synchronised and the ranks would drift apart. Call "
                "trainer.strategy.on_requires_grad_changed() after the change, as StagedUnfreezing "
                "does."
            )

    def save_checkpoint(
        self, checkpoint: dict[str, Any], filepath: str | Path, storage_options: Any | None = None
    ) -> None:
        """Rank zero writes; if it cannot, every rank raises.

        Raises:
            CheckpointError: if the checkpoint could not be written.
        """
        write = super().save_checkpoint
        together(lambda: write(checkpoint, filepath, storage_options), Path(filepath))

    def finish_saving(self) -> None:
        """Wait for a checkpoint that is being written in the background.

        Raises:
            CheckpointError: on all ranks, if it could not be written.
        """
        finish_together(self.checkpoint_io)

    def _setup_model(self, model: nn.Module) -> DistributedDataParallel:
        self._wrapped_flags = _flags(model)
        return super()._setup_model(model)

    def _is_stale(self) -> bool:
        module = self.lightning_module
        return module is not None and _flags(module) != self._wrapped_flags


def _flags(module: nn.Module) -> tuple[bool, ...]:
    return tuple(parameter.requires_grad for parameter in module.parameters())
