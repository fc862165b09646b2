"""The nearest code of every token, without ever holding [tokens x codes].

Shapes: N tokens, D channels, K codes, C tokens of one chunk.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor

Distance = Literal["euclidean", "cosine"]

MAX_SCORES = 2**22
"""Most scores held at once: 16 MB in float32, which stays in or near a processor's cache."""

MAX_SCORES_CUDA = 2**27
"""The same on a GPU, where a larger product keeps all its cores busy: 512 MB."""


_BLOCKS = (64, 32)
"""Codes of a block, see `best_column`: near the root of a codebook's size."""


@torch.no_grad()
def nearest_codes(tokens: Tensor, table: Tensor, distance: Distance) -> Tensor:
    """Index of the nearest code of every token.

    The nearest code by euclidean distance is the one of largest x.e - |e|^2 / 2: no square root
    and no |x|^2, which is the same for all codes. By cosine it is the one of largest x.e.

    Args:
        tokens: (N, D), float32 or wider, of unit length for `cosine`.
        table: the code vectors, (K, D), of the same type, of unit length for `cosine`.
        distance: `euclidean` or `cosine`.

    Returns:
        (N,) int64.
    """
    chunk = max(1, (MAX_SCORES_CUDA if tokens.is_cuda else MAX_SCORES) // len(table))
    offset = table.square().sum(1) * -0.5 if distance == "euclidean" else None  # (K,)
    codes = torch.empty(len(tokens), dtype=torch.int64, device=tokens.device)
    scores = tokens.new_empty(min(chunk, len(tokens)), len(table))  # (C, K)
    with _exact_products(tokens):
        for part in range(0, len(tokens), chunk):
            rows = tokens[part : part + chunk]
            room = scores[: len(rows)]
            if offset is None:
                torch.mm(rows, table.T, out=room)
            else:
                torch.addmm(offset, rows, table.T, out=room)
            codes[part : part + chunk] = best_column(room)
    return codes


def best_column(scores: Tensor) -> Tensor:
    """The first index of the largest score of every row, (C, K) -> (C,).

    On a CPU, `argmax` over a row compares one number at a time, a maximum many at once: finding
    the best block of codes first and looking only into that one takes a quarter of the time.
    """
    block = next((size for size in _BLOCKS if len(scores[0]) % size == 0), 1)
    if scores.is_cuda or block == 1 or not scores.is_contiguous():
        return scores.argmax(1)
    rows, per_row = len(scores), scores.shape[1] // block
    winner = scores.view(rows, per_row, block).amax(2).argmax(1)  # (C,)
    first = torch.arange(rows, device=scores.device) * per_row
    inside = scores.view(-1, block).index_select(0, first + winner)  # (C, block)
    return winner * block + inside.argmax(1)


@contextmanager
def _exact_products(tokens: Tensor) -> Iterator[None]:
    """Full float32 products on a GPU, also where the run allows TF32 for everything else."""
    allowed = torch.get_float32_matmul_precision()
    if not tokens.is_cuda or allowed == "highest":
        yield
        return
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(allowed)
