"""Pictures and captions that belong together: the task of a small CLIP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor

from lit_eve.models.contrastive import ContrastiveModel, contrastive_loss, found
from lit_eve.tasks.optimizers import AdamWOptions, Rate, build_adamw
from lit_eve_data.batches import PackedBatch


class ContrastiveTask(LightningModule):
    """Every picture against every caption of the batch; each rank's batch is on its own.

    Args:
        model: the CLIP.
        rates: part of the model -> learning rate as a function of the optimizer step.
        adamw: the optimizer's other options.

    Source:
        Radford et al. 2021, arXiv:2103.00020, section 2.3.
    """

    def __init__(
        self, model: ContrastiveModel, rates: Mapping[str, Rate], adamw: AdamWOptions
    ) -> None:
        super().__init__()
        self.model = model
        self.rates = rates
        self.adamw = adamw

    def training_step(self, batch: PackedBatch, batch_idx: int) -> dict[str, Tensor]:
        """The loss of one batch."""
        similarity, ids = self.model(batch)
        loss = contrastive_loss(similarity, ids)
        return {"loss": loss, "train/loss": loss.detach()}

    def validation_step(self, batch: PackedBatch, batch_idx: int) -> None:
        """Loss, pictures whose caption was found, pictures."""
        similarity, ids = self.model(batch)
        loss = contrastive_loss(similarity, ids) * len(ids)
        counted = [loss.double(), found(similarity, ids).double(), loss.new_tensor(len(ids))]
        self.held_out += torch.stack([value.double() for value in counted])

    def on_validation_epoch_start(self) -> None:
        """Start counting afresh."""
        self.held_out = torch.zeros(3, dtype=torch.float64, device=self.device)

    def on_validation_epoch_end(self) -> None:
        """Log the means over all held-out pictures of all ranks."""
        loss, right, count = self.trainer.strategy.reduce(self.held_out, reduce_op="sum")
        count = count.clamp(min=1)
        values = {"val/loss": (loss / count).float(), "val/found": (right / count).float()}
        self.log_dict(values, rank_zero_only=True)

    def configure_optimizers(self) -> Any:
        """Every parameter, each part at its own rate, stepped once per optimizer step."""
        optimizer, schedule = build_adamw(self.model, self.rates, self.adamw)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }
