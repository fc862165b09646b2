"""Latents at mean 0 and deviation 1, channel by channel.

Shapes: N tokens on this rank, D channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lit_eve.models.tokenizers.ranks import several, sum_with_gradient

EPSILON = 1e-5
"""Smallest variance that is divided by."""


class Standardize(nn.Module):
    """Shift and scale each channel to mean 0 and deviation 1, without weights of its own.

    Values are those by moving averages of mean and variance, in training and evaluation alike, so
    that a batch of a kind is not treated as if it were all there is. The gradient is that through
    the batch's own mean and variance over all ranks: nothing can be gained by moving or stretching
    a channel as a whole, so none wanders off.

    Attributes:
        mean, variance: (D,), the averages. The first batch sets them.
        batches: scalar, how many were seen.

    Args:
        channels: D.
        decay: of the averages, a training step.

    Source:
        Ioffe 2017, arXiv:1702.03275 (batch renormalization), without its bounds on r and d; the
        averages start at the first batch, where r is 1 and d is 0.
    """

    mean: Tensor
    variance: Tensor
    batches: Tensor

    def __init__(self, channels: int, decay: float = 0.95) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("mean", torch.zeros(channels, dtype=torch.float32))
        self.register_buffer("variance", torch.ones(channels, dtype=torch.float32))
        self.register_buffer("batches", torch.zeros((), dtype=torch.float32))

    def forward(self, tokens: Tensor) -> Tensor:
        """(..., D), float32 or wider -> the same shape; in training the averages move first."""
        if not self.training:
            return (tokens - self.mean) * _per_deviation(self.variance)
        mean, variance = _moments(tokens.flatten(0, -2))
        self._remember(mean.detach(), variance.detach())
        standardized = (tokens - mean) * _per_deviation(variance)
        inverse = _per_deviation(self.variance)
        stretch = inverse / _per_deviation(variance.detach())  # r
        shift = (mean.detach() - self.mean) * inverse  # d
        return standardized * stretch + shift

    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        self.batches += 1
        share = self.batches.reciprocal().clamp(min=1 - self.decay)  # the first ones count alike
        self.mean.lerp_(mean, share)
        self.variance.lerp_(variance, share)


def _per_deviation(variance: Tensor) -> Tensor:
    return (variance + EPSILON).rsqrt()


def _moments(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of the tokens of all ranks, (N, D) -> (D,) each."""
    if not several():
        mean = tokens.mean(0)
        return mean, (tokens - mean).square().mean(0)
    count = tokens.new_full((1,), len(tokens))
    total = sum_with_gradient(torch.cat([count, tokens.sum(0)]))
    mean = total[1:] / total[0]
    # Squares around the mean, not of the tokens: those would lose all digits far from 0.
    return mean, sum_with_gradient((tokens - mean).square().sum(0)) / total[0]
