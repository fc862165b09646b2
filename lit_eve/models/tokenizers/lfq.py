"""Lookup-free quantization: each channel is one bit, the code is the number they write.

Shapes: B images, D bits (channels), H/W cells of the grid, N = B * H * W tokens, K = 2 ** D codes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_eve.models.tokenizers.gradients import straight_through
from lit_eve.models.tokenizers.quantizer import (
    Grid,
    Quantized,
    Quantizer,
    check_spatial,
    to_tokens,
)
from lit_eve.models.tokenizers.ranks import mean_over_ranks

MAX_BITS = 24
"""The mean distribution over codes is held whole: 64 MB at 24 bits."""


@dataclass(frozen=True)
class EntropyLoss:
    """E[H(q)] - diversity * H(E[q]): each token certain of its code, all codes used."""

    weight: float = 0.1
    """Of the whole."""
    diversity: float = 1.0
    """Of the entropy of the mean over all tokens of all ranks."""
    inverse_temperature: float = 100.0
    """q(c | z) = softmax over the codes c of -|z - c|^2 times this."""


class LookupFreeQuantizer(Quantizer):
    """LFQ: the sign of every channel, -1 for 0; codes count channel 0 as the most significant bit.

    The distribution of a token over the K codes is a product over its bits, each on with
    probability sigmoid(4 t z). So the entropy of a token is the sum of D entropies of one bit, and
    the mean distribution over tokens is one matrix product of two halves of the bits: both exact,
    neither with a [tokens x codes] matrix, which for 2^18 codes would take gigabytes.

    Args:
        bits: D.
        entropy: the entropy loss.
        commitment_weight: of the mean squared distance to the signs.

    Raises:
        ValueError: if the number of bits is not from 1 to `MAX_BITS`.

    Source:
        Yu et al. 2023, arXiv:2310.05737, section 3.1. vector-quantize-pytorch clamps probabilities
        at 1e-5 before the logarithm and Open-MAGVIT2 adds 1e-5 to the mean ones; here the entropies
        are exact. The order of the bits is the former's; Open-MAGVIT2's code is the one of the same
        latent with its channels in reverse.
    """

    bit_values: Tensor

    def __init__(
        self, bits: int, entropy: EntropyLoss | None = None, commitment_weight: float = 0.25
    ) -> None:
        if not 1 <= bits <= MAX_BITS:
            raise ValueError(
                f"{bits} bits would be {2.0**bits:g} codes: give 1 to {MAX_BITS} bits, or use "
                "residual quantization for more."
            )
        super().__init__(bits, bits, 2**bits)
        self.entropy = entropy or EntropyLoss()
        self.commitment_weight = commitment_weight
        self.register_buffer("bit_values", 2 ** torch.arange(bits).flip(0), persistent=False)

    def quantize(self, latent: Tensor) -> Quantized:
        """Take the signs, and weigh the entropies in training."""
        positive = latent.detach() > 0  # (B, D, H, W)
        signs = positive.to(latent.dtype) * 2 - 1
        codes = (positive.movedim(1, -1) * self.bit_values).sum(-1)  # (B, H, W)
        distance = F.mse_loss(latent, signs)
        losses = {"commitment": self.commitment_weight * distance}
        statistics = {"quantization_error": distance.detach() * self.in_channels}
        if self.training:
            scale = 4 * self.entropy.inverse_temperature
            token, mean = code_entropies(to_tokens(latent) * scale)
            losses["entropy"] = self.entropy.weight * (token - self.entropy.diversity * mean)
            statistics |= {"token_entropy": token.detach(), "mean_entropy": mean.detach()}
        return Quantized(straight_through(latent, signs), codes, losses, statistics)

    def look_up(self, codes: Tensor, grid: Grid | None) -> Tensor:
        """Codes (B, H, W) to their signs, (B, D, H, W)."""
        check_spatial(codes, grid)
        positive = (codes.unsqueeze(-1) & self.bit_values) > 0  # (B, H, W, D)
        return (positive.to(torch.float32) * 2 - 1).movedim(-1, 1)


def code_entropies(odds: Tensor) -> tuple[Tensor, Tensor]:
    """Entropies of distributions over 2 ** D codes whose bits are independent.

    Args:
        odds: log-odds of every bit being on, (N, D).

    Returns:
        Mean entropy of a token, and entropy of the mean distribution of the tokens of all ranks:
        scalars in nats, 0 to D log 2.
    """
    on, off = F.logsigmoid(odds), F.logsigmoid(-odds)  # (N, D)
    token = -(on.exp() * on + off.exp() * off).sum(1).mean()
    half = odds.shape[1] // 2
    high, low = _joint(on[:, :half], off[:, :half]), _joint(on[:, half:], off[:, half:])
    mean = mean_over_ranks(high.T @ low / len(odds))  # (2^half, 2^(D - half))
    # Not torch's `entr`: its gradient at 0, where many codes end up, is infinite.
    return token, -(mean * mean.clamp(min=torch.finfo(mean.dtype).tiny).log()).sum()


def _joint(on: Tensor, off: Tensor) -> Tensor:
    """Probabilities of all settings of some bits, the first most significant, (N, 2 ** bits)."""
    joint = on.new_zeros(len(on), 1)
    for bit in range(on.shape[1]):
        either = torch.stack([off[:, bit], on[:, bit]], dim=1)  # (N, 2)
        joint = (joint.unsqueeze(2) + either.unsqueeze(1)).flatten(1)
    return joint.exp()
