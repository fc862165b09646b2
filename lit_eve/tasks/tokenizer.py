"""Image tokenizers: the same picture again, through a grid of codes.

Shapes: B images, H/W pixels, h/w cells of the grid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor
from torchmetrics import MetricCollection

from lit_eve.losses.likelihood import Likelihood
from lit_eve.models.tokenizers.image_tokenizer import ImageTokenizer
from lit_eve.models.tokenizers.pixels import check_pixels
from lit_eve.tasks.optimizers import AdamWOptions, Rate, build_adamw
from lit_eve.tasks.tokenizer_scores import HeldOutScores, by_level
from lit_eve.tasks.tokenizer_terms import Term
from lit_eve_data.batches import ImageBatch


class TokenizerTask(LightningModule):
    """Train a tokenizer: mean negative log-likelihood, the quantizer's losses, further terms.

    A training step returns, besides the loss: every loss as `train/<name>`, the quantizer's
    statistics as `codebook/<name>`, and the batch's codes by level under `codes`.

    Args:
        model: the tokenizer.
        likelihood: of its decoder's outputs.
        rates: part of the model -> learning rate as a function of the optimizer step.
        adamw: the optimizer's other options.
        terms: further losses, in the order they are computed.
        quality: metrics of (reconstructions, originals) in [0, 1]; PSNR and SSIM by default.
    """

    def __init__(
        self,
        model: ImageTokenizer,
        likelihood: Likelihood,
        rates: Mapping[str, Rate],
        adamw: AdamWOptions,
        terms: Sequence[Term] = (),
        quality: MetricCollection | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.likelihood = likelihood
        self.rates = rates
        self.adamw = adamw
        self.terms = tuple(terms)
        self.held_out = HeldOutScores(model.quantizer, likelihood, quality)

    def on_before_batch_transfer(self, batch: ImageBatch, dataloader_idx: int) -> ImageBatch:
        """Look at every pixel while that costs nothing: before the device has them."""
        check_pixels(batch.pixels, self.model.stride)
        return batch

    def training_step(self, batch: ImageBatch, batch_idx: int) -> dict[str, Any]:
        """All losses of a batch."""
        reconstruction = self.model(batch.pixels)
        nll = self.likelihood(reconstruction.outputs, reconstruction.target)
        losses = {"reconstruction": nll.mean(), **reconstruction.quantized.losses}
        statistics = {f"codebook/{k}": v for k, v in reconstruction.quantized.statistics.items()}
        for term in self.terms:
            more = term(self.model, reconstruction, batch.pixels, losses, self.global_step)
            losses |= more.losses
            statistics |= more.statistics
        loss = torch.stack(list(losses.values())).sum()
        shown = {f"train/{name}": value.detach() for name, value in losses.items()}
        codes = reconstruction.quantized.codes
        levels = {} if codes is None else by_level(self.model, codes, batch.pixels)
        return {"loss": loss, "train/loss": loss.detach(), **shown, **statistics, "codes": levels}

    def validation_step(self, batch: ImageBatch, batch_idx: int) -> None:
        """Hard reconstructions of held-out images."""
        self.held_out.update(self.model, batch.pixels)

    def test_step(self, batch: ImageBatch, batch_idx: int) -> None:
        """As validation."""
        self.held_out.update(self.model, batch.pixels)

    def on_validation_epoch_end(self) -> None:
        """Log what was counted over all held-out images of all processes."""
        self._log("val")

    def on_test_epoch_end(self) -> None:
        """As validation."""
        self._log("test")

    def configure_optimizers(self) -> Any:
        """Every parameter, each part at its own rate, stepped once per optimizer step."""
        optimizer, schedule = build_adamw(self.model, self.rates, self.adamw)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def pictures(self, pixels: Tensor) -> dict[str, Tensor]:
        """Originals and what the tokenizer makes of them, each (B, 3, H, W) in [0, 1]."""
        shown = {"original": pixels, "hard": self.model.reconstruct(pixels)}
        if self.model.relaxes:
            shown["relaxed"] = self.model.reconstruct(pixels, relaxed=True)
        return shown

    def _log(self, split: str) -> None:
        scores = self.held_out.compute()
        self.held_out.reset()
        self.log_dict({f"{split}/{name}": value.float() for name, value in scores.items()})
