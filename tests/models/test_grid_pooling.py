"""Packed pooling between grids against PyTorch's adaptive average pooling, image by image."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from lit_eve.models.grid_pooling import GridPooling
from tests.models.recording import Recording

SOURCE = ((6, 4), (5, 7), (3, 3), (2, 5), (1, 1))
TARGET = ((3, 2), (3, 4), (3, 3), (4, 7), (2, 3))  # halved, odd ratios, same, enlarged
CPU = torch.device("cpu")


def test_every_ratio_is_adaptive_average_pooling() -> None:
    torch.manual_seed(0)
    grids = [torch.randn(*size, 3, dtype=torch.float64, requires_grad=True) for size in SOURCE]
    num_windows = sum(rows * columns for rows, columns in SOURCE)
    shuffled = torch.randperm(num_windows)  # row of each window among the values
    values = torch.cat([grid.flatten(0, 1) for grid in grids])
    stored = torch.zeros_like(values).index_copy(0, shuffled, values)
    got = GridPooling.between(SOURCE, TARGET, CPU).average(stored, shuffled)
    wanted = torch.cat(
        [
            F.adaptive_avg_pool2d(grid.permute(2, 0, 1), target).flatten(1).T
            for grid, target in zip(grids, TARGET, strict=True)
        ]
    )
    torch.testing.assert_close(got, wanted)
    weights = torch.randn_like(wanted)
    torch.testing.assert_close(
        torch.autograd.grad((got * weights).sum(), grids),
        torch.autograd.grad((wanted * weights).sum(), grids),
    )


def test_no_images_give_no_cells() -> None:
    pooled = GridPooling.between((), (), CPU).average(
        torch.ones(4, 3), torch.zeros(0, dtype=torch.int64)
    )
    assert pooled.shape == (0, 3)


def test_the_operations_do_not_grow_with_the_images() -> None:
    counts = []
    for repeats in (1, 5):
        source, target = SOURCE * repeats, TARGET * repeats
        num_windows = sum(rows * columns for rows, columns in source)
        values = torch.randn(num_windows, 3, requires_grad=True)
        with Recording() as recorded:
            pooled = GridPooling.between(source, target, CPU).average(
                values, torch.arange(num_windows)
            )
            torch.autograd.backward(pooled.sum())
        counts.append(len(recorded.operations))
    assert counts[0] == counts[1]
