"""K-means over the tokens of all ranks: where a codebook starts.

Shapes: N tokens on this rank, D channels, K codes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_eve.models.tokenizers.nearest import Distance, nearest_codes
from lit_eve.models.tokenizers.ranks import (
    first_rank_decides,
    pick_rows,
    rows_of_all,
    sum_over_ranks,
)


@torch.no_grad()
def kmeans(
    tokens: Tensor, num_codes: int, distance: Distance, iterations: int
) -> tuple[Tensor, Tensor]:
    """Means of the tokens of all ranks, equal on every rank.

    Starts from tokens drawn at random, each once if there are enough. A mean that no token is
    nearest to stays where it is.

    Args:
        tokens: (N, D), of unit length for `cosine`.
        num_codes: K.
        distance: `cosine` keeps the means at unit length.
        iterations: rounds; 0 leaves the drawn tokens.

    Returns:
        The means, (K, D), and how many tokens each had in the last round, (K,): all ones after no
        rounds.
    """
    means = _draw(tokens, num_codes)  # (K, D)
    counts = tokens.new_ones(num_codes)
    for _ in range(iterations):
        sums, counts = sum_by_code(tokens, nearest_codes(tokens, means, distance), num_codes)
        sum_over_ranks(sums, counts)
        moved = sums / counts.clamp(min=1).unsqueeze(1)
        if distance == "cosine":
            moved = F.normalize(moved, dim=1)
        means = torch.where((counts > 0).unsqueeze(1), moved, means)
    return means, counts


def sum_by_code(tokens: Tensor, codes: Tensor, num_codes: int) -> tuple[Tensor, Tensor]:
    """Sum of the tokens of every code, (K, D), and their number, (K,), in the tokens' type."""
    sums = tokens.new_zeros(num_codes, tokens.shape[1])
    sums.scatter_add_(0, codes.unsqueeze(1).expand_as(tokens), tokens)
    counts = tokens.new_zeros(num_codes)
    counts.scatter_add_(0, codes, tokens.new_ones(len(codes)))
    return sums, counts


def _draw(tokens: Tensor, num_codes: int) -> Tensor:
    first, total = rows_of_all(tokens)
    available = int(total)  # asks the device, but only once in a training
    picks = torch.randperm(available)[:num_codes]
    if available < num_codes:
        picks = torch.cat([picks, torch.randint(available, (num_codes - available,))])
    picks = first_rank_decides(picks.to(tokens.device))
    return pick_rows(tokens, picks, first)
