"""Averaged weights: evaluated and exported in place of the last ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

KEY = "averaged_weights"
"""Where a checkpoint holds them."""


class WeightAveraging(Callback):
    """An exponential moving average of all weights, used in validation and test.

    After every optimizer step t, average <- d average + (1 - d) weights with d = min(`decay`,
    (1 + t) / (10 + t)): early on the average is short, so that random first weights are forgotten
    in a short training too. Parameters and buffers are averaged alike, a codebook's moving averages
    among them, so that encoder and codes stay of one age; what is not a floating-point number, or
    has no axes (a temperature, a flag), is taken as it is.

    Args:
        decay: d in the long run.

    Raises:
        ValueError: if the decay is out of range.

    Source:
        Ramesh et al. 2021, arXiv:2102.12092, A.2 (0.999). The short start is not theirs.
    """

    def __init__(self, decay: float = 0.999) -> None:
        if not 0 < decay < 1:
            raise ValueError(f"a decay of {decay} averages nothing: give 0 to 1, e.g. 0.999.")
        self.decay = decay
        self.averages: dict[str, Tensor] = {}
        self._seen_step = 0
        self._swapped = False

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start from the weights, unless a checkpoint brought averages."""
        self._settle(pl_module)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go on from the resumed step; shards are restored only after `on_fit_start`."""
        self._settle(pl_module)
        self._seen_step = trainer.global_step

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Follow the weights after every optimizer step."""
        step = trainer.global_step
        if step == self._seen_step:
            return
        self._seen_step = step
        share = 1 - decay_at(step, self.decay)
        for name, weight in _weights(pl_module).items():
            if _is_averaged(weight):
                self.averages[name].lerp_(weight.float(), share)
            else:
                self.averages[name].copy_(weight)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Evaluate the averages; not sooner, since checkpoints are saved as validation starts."""
        self._swap(pl_module, averaged=True)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Train on."""
        self._swap(pl_module, averaged=False)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Evaluate the averages."""
        self._swap(pl_module, averaged=True)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Back to the weights."""
        self._swap(pl_module, averaged=False)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """What is saved now must be the weights."""
        self._swap(pl_module, averaged=False)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the averages, whole, on the rank that writes; all ranks have to come here."""
        whole = {name: _whole(average) for name, average in self.averages.items()}
        checkpoint[KEY] = whole if trainer.is_global_zero else {}

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Take the averages; a checkpoint without them starts them at its weights."""
        self.averages = dict(checkpoint.get(KEY, {}))

    def _settle(self, pl_module: LightningModule) -> None:
        """An average for every weight, where and as that is; the weight itself where it has none.

        Every rank averages its own shards, without a word to the others.
        """
        for name, weight in _weights(pl_module).items():
            average = _shared_as(weight, self.averages.get(name, weight))
            self.averages[name] = average.to(
                weight.device, torch.float32 if _is_averaged(weight) else weight.dtype, copy=True
            )

    @torch.no_grad()
    def _swap(self, pl_module: LightningModule, averaged: bool) -> None:
        if averaged == self._swapped or not self.averages:
            return
        for name, weight in _weights(pl_module).items():
            kept = weight.detach().clone()
            weight.copy_(self.averages[name])
            self.averages[name].copy_(kept)
        self._swapped = averaged


def decay_at(step: int, decay: float) -> float:
    """How much of the average stays at optimizer step `step`, from 1."""
    return min(decay, (1 + step) / (10 + step))


def averaged_weights(checkpoint: Mapping[str, Any], prefix: str = "model.") -> dict[str, Tensor]:
    """The averages of a checkpoint under their names in the model.

    Args:
        checkpoint: as a Trainer saved it.
        prefix: of the model in the LightningModule, taken off.

    Raises:
        ValueError: if it holds none.
    """
    if KEY not in checkpoint:
        raise ValueError(
            "this checkpoint holds no averaged weights: it was trained without them. Use its "
            "ordinary weights."
        )
    return {
        name.removeprefix(prefix): average
        for name, average in checkpoint[KEY].items()
        if name.startswith(prefix)
    }


def _weights(pl_module: LightningModule) -> dict[str, Tensor]:
    """Every tensor that a checkpoint holds, by name."""
    state: dict[str, Any] = pl_module.state_dict()
    return {name: value for name, value in state.items() if isinstance(value, Tensor)}


def _shared_as(weight: Tensor, whole: Tensor) -> Tensor:
    """This rank's shard of a whole average, if the weight is sharded."""
    if not isinstance(weight, DTensor) or isinstance(whole, DTensor):
        return whole
    mesh, placements = weight.device_mesh, weight.placements
    return distribute_tensor(whole.to(weight.device), mesh, placements, src_data_rank=None)


def _whole(average: Tensor) -> Tensor:
    return average.full_tensor().cpu() if isinstance(average, DTensor) else average.clone()


def _is_averaged(weight: Tensor) -> bool:
    return weight.is_floating_point() and weight.ndim > 0
