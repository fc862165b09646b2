"""Finite scalar quantization: each channel rounds to one of a few levels; no codebook to learn.

Shapes: B images, D channels (one per entry of `levels`), H/W cells of the grid.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lit_eve.models.tokenizers.gradients import straight_through
from lit_eve.models.tokenizers.quantizer import Grid, Quantized, Quantizer, check_spatial
from lit_eve.models.tokenizers.standardize import Standardize

OVERSHOOT = 1e-3
"""The bound is this share wider than half the distance of the outermost levels."""


class FiniteScalarQuantizer(Quantizer):
    """FSQ: bound every channel by a tanh, round it, number the combinations.

    The quantized latent is round(f(z)) / (L // 2): -1 to 1 for an odd L, and up to 1 - 2 / L for an
    even one. Codes count channel 0 as the least significant digit. There is no loss.

    Args:
        levels: L of every channel, at least 3; the paper recommends 5 or more.
        standardize: bring every channel to mean 0 and deviation 1 before it is bounded. The paper
            does not; without it a channel can drift to where the tanh is flat and stay there, at
            its outermost level for most tokens.

    Raises:
        ValueError: if there are no levels or one is below 3.

    Source:
        Mentzer et al. 2023, arXiv:2309.15505, section 3 and listing 1, with two numbers as in
        lucidrains' vector-quantize-pytorch: where the listing shifts an even L by tan(o / h), this
        is the inverse of the tanh, so that f(0) = 0, and its 1 - 0.001 is 1 + 0.001.
    """

    levels: Tensor
    basis: Tensor

    def __init__(self, levels: Sequence[int], standardize: bool = False) -> None:
        if not levels or min(levels) < 3:
            raise ValueError(
                f"FSQ levels of {list(levels)} cannot hold anything: every channel needs at least "
                "3 levels, since the border between two would lie at z = -3.8, which hardly any "
                "latent crosses. The paper's choice for about 1000 codes is [8, 5, 5, 5]; for "
                "channels of one bit take LFQ."
            )
        super().__init__(len(levels), len(levels), math.prod(levels))
        counts = torch.tensor(levels)
        self.register_buffer("levels", counts, persistent=False)
        places = torch.cat([torch.ones(1, dtype=torch.int64), counts[:-1].cumprod(0)])
        self.register_buffer("basis", places, persistent=False)
        self.standardize = Standardize(len(levels)) if standardize else nn.Identity()

    def quantize(self, latent: Tensor) -> Quantized:
        """Standardize if asked to, bound, round, number."""
        z = self.standardize(latent.movedim(1, -1))  # (B, H, W, D)
        levels = self.levels.to(z.dtype)
        half_width = (levels - 1) * ((1 + OVERSHOOT) / 2)  # (D,)
        offset = (levels % 2 == 0) * 0.5  # (D,)
        bounded = torch.tanh(z + torch.atanh(offset / half_width)) * half_width - offset
        digits = bounded.detach().round()  # (B, H, W, D)
        rounded = straight_through(bounded, digits) / (self.levels // 2)
        codes = ((digits.long() + self.levels // 2) * self.basis).sum(-1)  # (B, H, W)
        error = (bounded.detach() - digits).square().sum(-1).mean()
        return Quantized(rounded.movedim(-1, 1), codes, {}, {"quantization_error": error})

    def look_up(self, codes: Tensor, grid: Grid | None) -> Tensor:
        """Codes (B, H, W) to their levels, (B, D, H, W)."""
        check_spatial(codes, grid)
        digits = codes.unsqueeze(-1) // self.basis % self.levels  # (B, H, W, D)
        half = (self.levels // 2).to(torch.float32)
        return ((digits - half) / half).movedim(-1, 1)
