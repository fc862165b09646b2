"""Image tokenizers: the same picture again, through a grid of codes.

Shapes: B images, H/W pixels, h/w cells of the grid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from lightning import LightningModule
from torch import Tensor, nn
from torchmetrics import MetricCollection

from lit_eve.losses.likelihood import Likelihood
from lit_eve.metrics.codebook import CodebookUsage
from lit_eve.metrics.reconstruction import check_ssim_size, eight_bits, reconstruction_quality
from lit_eve.models.tokenizers.image_tokenizer import ImageTokenizer
from lit_eve.models.tokenizers.pixels import check_pixels
from lit_eve.models.tokenizers.quantizer import Quantizer
from lit_eve.tasks.optimizers import AdamWOptions, Rate, build_adamw
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
        self.quality = quality or reconstruction_quality()
        self.usage = nn.ModuleDict(counters(model.quantizer))

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
        codes = self._by_level(reconstruction.quantized.codes, batch.pixels)
        return {"loss": loss, "train/loss": loss.detach(), **shown, **statistics, "codes": codes}

    def validation_step(self, batch: ImageBatch, batch_idx: int) -> None:
        """Hard reconstructions of held-out images."""
        self._evaluate(batch.pixels, "val")

    def test_step(self, batch: ImageBatch, batch_idx: int) -> None:
        """As validation."""
        self._evaluate(batch.pixels, "test")

    def on_validation_epoch_end(self) -> None:
        """Log what was counted over all held-out images of all processes."""
        self._log_counted("val")

    def on_test_epoch_end(self) -> None:
        """As validation."""
        self._log_counted("test")

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

    def _evaluate(self, pixels: Tensor, split: str) -> None:
        check_ssim_size(pixels)
        reconstruction = self.model(pixels)
        nll = self.likelihood(reconstruction.outputs, reconstruction.target).mean()
        losses = {"reconstruction": nll, **reconstruction.quantized.losses}
        losses["loss"] = torch.stack(list(losses.values())).sum()
        if self.model.relaxes:
            relaxed = self.model.outputs(pixels, relaxed=True)
            relaxed_nll = self.likelihood(relaxed, reconstruction.target).mean()
            losses["relaxed_gap"] = nll - relaxed_nll  # of the bound: the KL is the same
        named = {f"{split}/{name}": value for name, value in losses.items()}
        self.log_dict(named, on_step=False, on_epoch=True, sync_dist=True, batch_size=len(pixels))
        self.quality.update(eight_bits(self.model.pixels.to_pixels(reconstruction.outputs)), pixels)
        counting = self._counters()
        for level, codes in self._by_level(reconstruction.quantized.codes, pixels).items():
            counting[level].update(codes)

    def _log_counted(self, split: str) -> None:
        values = {f"{split}/{name}": value for name, value in self.quality.compute().items()}
        for level, counter in self._counters().items():
            place = f"{split}/codebook" if level == "all" else f"{split}/codebook/{level}"
            values |= {f"{place}/{name}": value for name, value in counter.compute().items()}
            counter.reset()
        self.quality.reset()
        self.log_dict(values)

    def _counters(self) -> dict[str, CodebookUsage]:
        return cast(dict[str, CodebookUsage], dict(self.usage.items()))

    def _by_level(self, codes: Tensor | None, pixels: Tensor) -> dict[str, Tensor]:
        if codes is None:
            return {}
        height, width = pixels.shape[2:]
        grid = (height // self.model.stride, width // self.model.stride)
        return self.model.quantizer.split(codes, grid)


def counters(quantizer: Quantizer) -> dict[str, CodebookUsage]:
    """A fresh counter for every stage or scale that codes come from."""
    if quantizer.num_codes is None:
        return {}
    return {level: CodebookUsage(quantizer.num_codes) for level in quantizer.levels_of_codes}
