"""What a tokenizer is worth on held-out images.

Shapes: B images, H/W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric, MetricCollection

from lit_eve.losses.likelihood import Likelihood
from lit_eve.metrics.codebook import CodebookUsage
from lit_eve.metrics.reconstruction import check_ssim_size, eight_bits, reconstruction_quality
from lit_eve.models.tokenizers.image_tokenizer import ImageTokenizer
from lit_eve.models.tokenizers.quantizer import Quantizer


class Measured(NamedTuple):
    """A batch of images, rebuilt."""

    pixels: Tensor
    rebuilt: Tensor
    """Rounded to 8 bits."""
    losses: Mapping[str, Tensor]
    codes: Mapping[str, Tensor]
    """By level."""


class HeldOutScores(nn.Module):
    """Losses, quality and use of the codes of hard reconstructions, over all processes.

    `compute` gives: `loss`, `reconstruction` and the quantizer's losses; for quantizers that relax
    `relaxed_gap`, what hard codes cost the bound; the metrics of quality; and for every level of
    codes what `CodebookUsage` counts, as `codebook/<name>` or `codebook/<level>/<name>`.

    Args:
        quantizer: states the codes there are.
        likelihood: of the decoder's outputs.
        quality: metrics of (reconstructions, originals) in [0, 1]; PSNR and SSIM by default.
    """

    def __init__(
        self,
        quantizer: Quantizer,
        likelihood: Likelihood,
        quality: MetricCollection | None = None,
    ) -> None:
        super().__init__()
        self.likelihood = likelihood
        self.quality = quality or reconstruction_quality()
        self.usage = nn.ModuleDict(counters(quantizer))
        self.means = nn.ModuleDict()

    def update(self, model: ImageTokenizer, pixels: Tensor) -> None:
        """Add images, (B, 3, H, W) in [0, 1], as a model in evaluation mode rebuilds them.

        Raises:
            ValueError: if they are too small for SSIM's window.
        """
        self.add(self.measure(model, pixels))

    @torch.no_grad()
    def measure(self, model: ImageTokenizer, pixels: Tensor) -> Measured:
        """What `add` needs of a batch: several scores can share it."""
        check_ssim_size(pixels)
        reconstruction = model(pixels)
        nll = self.likelihood(reconstruction.outputs, reconstruction.target).mean()
        losses = {"reconstruction": nll, **reconstruction.quantized.losses}
        losses["loss"] = torch.stack(list(losses.values())).sum()
        if model.relaxes:
            relaxed = model.outputs(pixels, relaxed=True)
            relaxed_nll = self.likelihood(relaxed, reconstruction.target).mean()
            losses["relaxed_gap"] = nll - relaxed_nll  # of the bound: the KL is the same
        codes = reconstruction.quantized.codes
        levels = {} if codes is None else by_level(model, codes, pixels)
        rebuilt = eight_bits(model.pixels.to_pixels(reconstruction.outputs))
        return Measured(pixels, rebuilt, losses, levels)

    def add(self, measured: Measured) -> None:
        """Count a batch."""
        images = len(measured.pixels)
        for name, value in measured.losses.items():
            self._mean(name, value.device).update(value, weight=images)
        self.quality.update(measured.rebuilt, measured.pixels)
        for level, codes in measured.codes.items():
            cast(CodebookUsage, self.usage[level]).update(codes)

    def compute(self) -> dict[str, Tensor]:
        """Everything since the last reset, by name; the same on every process."""
        values = {name: cast(MeanMetric, mean).compute() for name, mean in self.means.items()}
        values |= self.quality.compute()
        for level, counter in self.usage.items():
            place = "codebook" if level == "all" else f"codebook/{level}"
            found = cast(CodebookUsage, counter).compute()
            values |= {f"{place}/{name}": value for name, value in found.items()}
        return values

    def reset(self) -> None:
        """Start counting afresh."""
        self.quality.reset()
        for metric in (*self.means.values(), *self.usage.values()):
            cast(CodebookUsage | MeanMetric, metric).reset()

    def _mean(self, name: str, device: torch.device) -> MeanMetric:
        if name not in self.means:
            self.means[name] = MeanMetric().to(device)
        return cast(MeanMetric, self.means[name])


def by_level(model: ImageTokenizer, codes: Tensor, pixels: Tensor) -> dict[str, Tensor]:
    """The codes of images at every level of their quantizer."""
    height, width = pixels.shape[2:]
    return model.quantizer.split(codes, (height // model.stride, width // model.stride))


def counters(quantizer: Quantizer) -> dict[str, CodebookUsage]:
    """A fresh counter for every stage or scale that codes come from."""
    if quantizer.num_codes is None:
        return {}
    return {level: CodebookUsage(quantizer.num_codes) for level in quantizer.levels_of_codes}
