"""Next-token prediction over text with image patches: the vision-language model's task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor

from lit_eve.models.vision_language import VisionLanguageModel
from lit_eve.tasks.optimizers import AdamWOptions, Rate, build_adamw, one
from lit_eve_data.batches import PackedBatch


class LanguageTask(LightningModule):
    """Train the model to say the supervised tokens: answers and captions, never prompts.

    Args:
        model: reads pictures and writes text.
        rates: part of the model -> learning rate as a function of the optimizer step.
        adamw: the optimizer's other options.
        language: weight of the loss as a function of the optimizer step.

    Source:
        Diao et al. 2024, arXiv:2406.11832, section 3.2 (stages 2 and 3, cross-entropy term).
    """

    def __init__(
        self,
        model: VisionLanguageModel,
        rates: Mapping[str, Rate],
        adamw: AdamWOptions,
        language: Rate = one,
    ) -> None:
        super().__init__()
        self.model = model
        self.rates = rates
        self.adamw = adamw
        self.language = language

    def training_step(self, batch: PackedBatch, batch_idx: int) -> dict[str, Tensor]:
        """The loss of one micro-batch, scaled so that ranks and micro-batches average exactly."""
        total, count = self.model.next_token_loss(batch)
        return {
            "loss": self.language(self.global_step) * total / batch.labels_share,
            "train/loss": total.detach() / count.clamp(min=1),
        }

    def validation_step(self, batch: PackedBatch, batch_idx: int) -> None:
        """Sum of the loss and number of supervised tokens on held-out rows."""
        total, count = self.model.next_token_loss(batch)
        self.held_out += torch.stack([total.double(), count.double()])

    def on_validation_epoch_start(self) -> None:
        """Start counting afresh."""
        self.held_out = torch.zeros(2, dtype=torch.float64, device=self.device)

    def on_validation_epoch_end(self) -> None:
        """Log the mean over all held-out tokens of all ranks."""
        total, count = self.trainer.strategy.reduce(self.held_out, reduce_op="sum")
        self.log("val/loss", (total / count.clamp(min=1)).float(), rank_zero_only=True)

    def configure_optimizers(self) -> Any:
        """Every parameter, each part at its own rate, stepped once per optimizer step."""
        optimizer, schedule = build_adamw(self.model, self.rates, self.adamw)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }
