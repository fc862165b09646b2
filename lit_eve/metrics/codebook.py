"""How much of a codebook is used, counted over a window or an evaluation set.

Shapes: K codes, any shape of codes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torchmetrics import Metric


class CodebookUsage(Metric):
    """Counts of every code since the last reset, over all processes.

    Usage is the share of codes hit at least once. It cannot exceed what uniform codes would reach
    with as many tokens, so it is also given as a share of that ceiling: 8192 codes and one grid of
    32 x 32 allow no more than 11.8 %.

    Args:
        num_codes: K.
    """

    full_state_update = False
    counts: Tensor

    def __init__(self, num_codes: int) -> None:
        super().__init__()
        self.num_codes = num_codes
        self.add_state("counts", torch.zeros(num_codes, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, codes: Tensor) -> None:
        """Count codes; the device is not asked for anything."""
        flat = codes.flatten()
        self.counts.scatter_add_(0, flat, torch.ones_like(flat))

    def compute(self) -> dict[str, Tensor]:
        """Usage, its ceiling and their quotient (0 to 1), perplexity (1 to K), dead codes."""
        return usage(self.counts)


def usage(counts: Tensor) -> dict[str, Tensor]:
    """What counts of every code, (K,), say about the codebook.

    Returns:
        `usage`: share of codes used. `ceiling`: the share that uniform codes would use.
        `usage_of_ceiling`: their quotient. `perplexity`: exp of the entropy of the frequencies.
        `dead`: codes not used. All 0 if nothing was counted, except `dead`.
    """
    num_codes, total = len(counts), counts.sum()
    used = (counts > 0).sum().double()
    ceiling = -torch.expm1(total.double() * math.log1p(-1 / num_codes))
    frequencies = counts.double() / total.clamp(min=1)
    perplexity = torch.special.entr(frequencies).sum().exp() * (total > 0)
    return {
        "usage": (used / num_codes).float(),
        "ceiling": ceiling.float(),
        "usage_of_ceiling": (used / (num_codes * ceiling).clamp(min=1)).float(),
        "perplexity": perplexity.float(),
        "dead": (num_codes - used).float(),
    }
