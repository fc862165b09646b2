"""The continuous baseline: a diagonal Gaussian, as in the VAE and the beta-VAE.

Shapes: B images, D latent channels, H/W cells of the grid.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lit_eve.models.tokenizers.quantizer import Grid, Quantized, Quantizer

LOG_VARIANCE = (-30.0, 20.0)
"""Log-variances are kept in this range, as latent diffusion's code does."""


class GaussianBottleneck(Quantizer):
    """Mean and log-variance in; a sample out in training, the mean in evaluation. No codes.

    KL = 1/2 sum over D of (mean^2 + variance - 1 - log variance) per position. Its weight is per
    value of the image, as the Gumbel quantizer's: beta / (values per position) times the mean over
    positions, so that beta 1 with a likelihood averaged over all values is the VAE's bound.

    Attributes:
        kl_weight: scalar buffer, beta, meant to be annealed from outside.

    Args:
        width: D. The latent that comes in has 2 * D channels, means first.
        values_per_position: pixel values for every cell: 3 * stride ** 2.

    Source:
        Kingma & Welling 2014, arXiv:1312.6114, appendix B; Higgins et al. 2017 (beta-VAE).
    """

    kl_weight: Tensor

    def __init__(self, width: int, values_per_position: int) -> None:
        super().__init__(2 * width, width, None)
        self.values_per_position = values_per_position
        self.register_buffer("kl_weight", torch.tensor(1.0, dtype=torch.float32))

    def quantize(self, latent: Tensor) -> Quantized:
        """Sample, or take the mean."""
        mean, log_variance = latent.chunk(2, dim=1)  # (B, D, H, W) each
        log_variance = log_variance.clamp(*LOG_VARIANCE)
        variance = log_variance.exp()
        kl = 0.5 * (mean.square() + variance - 1 - log_variance).sum(1).mean()
        sample = mean + variance.sqrt() * torch.randn_like(mean) if self.training else mean
        losses = {"kl": self.kl_weight / self.values_per_position * kl}
        return Quantized(sample, None, losses, {"kl_nats": kl.detach()})

    def look_up(self, codes: Tensor, grid: Grid | None) -> Tensor:
        """Never: `embed` has stopped on the absence of codes."""
        raise AssertionError("a continuous latent has no codes")
