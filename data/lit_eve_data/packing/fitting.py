"""Samples into rows of equal room, best fit decreasing, for many windows side by side.

Source: Johnson 1973. Where several rows are left with the same room, the first of them is taken.

Shapes: W windows, N samples of each, R rows of each at most.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
_TOGETHER = 16  # samples after which it is looked how many rows there are


def best_fit(lengths: Integers, room: int) -> tuple[Integers, Integers]:
    """Each sample, longest first, goes where it leaves the least room.

    Args:
        lengths: (W, N) tokens of each sample, none above `room`.
        room: tokens a row holds.

    Returns:
        The samples of each window, longest first, (W, N), and the row of each of them, (W, N).
    """
    kind = np.uint16 if room < 2**15 else np.uint32
    windows, count = lengths.shape
    order = np.argsort((room - lengths).astype(kind), axis=1, kind="stable")
    sizes = np.take_along_axis(lengths, order, 1).T.astype(kind)  # (N, W)
    most = min(count, 2 * int(lengths.sum(1).max(initial=0)) // room + 2)  # two rows never fit one
    left = np.full((windows, most), room, kind)
    rest = np.empty_like(left)
    rows = np.empty((count, windows), np.int64)
    each, opened = np.arange(windows), 0
    for start in range(0, count, _TOGETHER):
        width = min(most, opened + _TOGETHER)
        here, after = left[:, :width], rest[:, :width]
        for place in range(start, min(start + _TOGETHER, count)):
            size = sizes[place]
            # What does not fit wraps round, to more than any room.
            row = np.subtract(here, size[:, None], out=after).argmin(1)
            rows[place] = row
            left[each, row] -= size
        opened = max(opened, int(rows[start : start + _TOGETHER].max(initial=0)) + 1)
    return order, rows.T


def best_fit_decreasing(lengths: Integers, room: int) -> list[list[int]]:
    """Rows of positions of one window.

    Args:
        lengths: (N,) tokens of each sample, none above `room`.
        room: tokens a row holds.
    """
    (order,), (rows,) = best_fit(lengths[None], room)
    places, borders = by_row(rows)
    samples = order[places].tolist()
    return [samples[start:stop] for start, stop in pairwise(borders)]


def by_row(rows: Integers) -> tuple[Integers, list[int]]:
    """Samples by the row they are in: their places, (N,), and where each row begins and ends."""
    places = np.argsort(rows.astype(np.uint16 if len(rows) < 2**16 else np.uint32), kind="stable")
    return places, [0, *np.cumsum(np.bincount(rows)).tolist()]
