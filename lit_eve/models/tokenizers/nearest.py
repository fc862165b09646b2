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


MAX_CODES = 2**11
"""Most codes compared at once, so that a chunk holds as many tokens as codes. With all codes of a
large codebook it would hold few, for which a product is slow: the whole table is read for each."""

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
    offset = table.square().sum(1) * -0.5 if distance == "euclidean" else None  # (K,)
    codes = torch.empty(len(tokens), dtype=torch.int64, device=tokens.device)
    width = min(len(table), MAX_CODES)
    chunk = max(1, (MAX_SCORES_CUDA if tokens.is_cuda else MAX_SCORES) // width)
    room = tokens.new_empty(min(chunk, len(tokens)) * width)
    with _exact_products(tokens):
        for part in range(0, len(tokens), chunk):
            codes[part : part + chunk] = _nearest(tokens[part : part + chunk], table, offset, room)
    return codes


def _nearest(rows: Tensor, table: Tensor, offset: Tensor | None, room: Tensor) -> Tensor:
    """The nearest code of every row, (C, D) -> (C,), a block of codes after the other."""
    codes = torch.zeros(len(rows), dtype=torch.int64, device=rows.device)
    best = rows.new_full((len(rows),), -torch.inf)
    for start in range(0, len(table), MAX_CODES):
        block = table[start : start + MAX_CODES]
        scores = room[: len(rows) * len(block)].view(len(rows), len(block))
        if offset is None:
            torch.mm(rows, block.T, out=scores)
        else:
            torch.addmm(offset[start : start + MAX_CODES], rows, block.T, out=scores)
        found = best_column(scores)  # (C,)
        score = scores.gather(1, found.unsqueeze(1)).squeeze(1)  # (C,)
        better = score > best  # of equals, the first
        codes = torch.where(better, found + start, codes)
        best = torch.maximum(best, score)
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
