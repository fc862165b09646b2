"""Averages that bring the token grids of many images to other grids, all at once.

Shapes: I images, M windows over all images, F cells of the target grids over all images,
K (cell, window) pairs, L layers, E width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

Grids = Sequence[tuple[int, int]]
"""(rows, columns) of every image."""


@dataclass(frozen=True)
class GridPooling:
    """For every target cell the windows whose average it is.

    The same cells as PyTorch's `adaptive_avg_pool2d`: cell i of g over n windows takes windows
    floor(i n / g) up to ceil((i + 1) n / g), so any ratio works, also enlarging ones, and an
    integer ratio is the plain average pooling of EVE.
    """

    windows: Tensor
    """(K,) int64: windows of the first cell, of the second, ..."""
    starts: Tensor
    """(F,) int64: where each cell's windows start in `windows`."""

    @classmethod
    def between(cls, source: Grids, target: Grids, device: torch.device) -> GridPooling:
        """Pooling from `source` grids to `target` grids, image by image.

        The host works it out, and nothing waits for the device.
        """
        rows, columns, tall, wide = _columns(source, target)  # (I,) each
        first = exclusive_sum(rows * columns)  # (I,): each image's first window
        image, cell = ragged(tall * wide)  # (F,) each
        top, bottom = _span(cell // wide[image], rows[image], tall[image])
        left, right = _span(cell % wide[image], columns[image], wide[image])
        width = right - left
        owner, number = ragged((bottom - top) * width)  # (K,) each
        y = top[owner] + number // width[owner]
        x = left[owner] + number % width[owner]
        windows = first[image][owner] + y * columns[image][owner] + x
        starts = exclusive_sum((bottom - top) * width)
        return cls(windows.to(device, non_blocking=True), starts.to(device, non_blocking=True))

    def average(self, values: Tensor, rows: Tensor) -> Tensor:
        """Average the values of every cell's windows.

        Args:
            values: anything with one row for every window, (N, E).
            rows: row of each window in `values`, (M,) int64.

        Returns:
            (F, E), cells in order.
        """
        return F.embedding_bag(rows[self.windows], values, self.starts, mode="mean")


def _columns(source: Grids, target: Grids) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    sizes = [(*one, *other) for one, other in zip(source, target, strict=True)]
    table = torch.tensor(sizes, dtype=torch.int64).view(-1, 4)  # (I, 4)
    rows, columns, tall, wide = table.unbind(1)
    return rows, columns, tall, wide


def exclusive_sum(counts: Tensor) -> Tensor:
    """Sum of what comes before each."""
    return counts.cumsum(0) - counts


def ragged(counts: Tensor) -> tuple[Tensor, Tensor]:
    """Owner and running number of every member of groups that have `counts` members."""
    owner = torch.arange(len(counts)).repeat_interleave(counts)
    return owner, torch.arange(len(owner)) - exclusive_sum(counts)[owner]


def _span(cell: Tensor, size: Tensor, cells: Tensor) -> tuple[Tensor, Tensor]:
    """First and past-the-last of the `size` places that `cell` of `cells` covers."""
    return cell * size // cells, ((cell + 1) * size + cells - 1) // cells
