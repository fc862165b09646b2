"""The images of a packed batch, each resized onto a square canvas, all in one pass.

Shapes: I images, M windows, C channels, H/W pixels of the tallest and widest image, N side of the
canvas in pixels, F cells used on all canvases.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lit_eve.models.grid_pooling import Grids, ragged
from lit_eve_data.batches import ImageLayout, PackedImages


def fitted_grids(grids: Grids, cells: int) -> tuple[tuple[int, int], ...]:
    """Grids of the same shapes whose longer side has exactly `cells`; the other is rounded up."""
    return tuple(
        (-(-cells * rows // max(rows, columns)), -(-cells * columns // max(rows, columns)))
        for rows, columns in grids
    )


def cell_places(grids: Grids, canvas: tuple[int, int], centred: bool) -> Tensor:
    """Where the cells of each grid lie on its canvas, canvases one after another.

    Args:
        grids: (rows, columns) of every image.
        canvas: (rows, columns) of every canvas.
        centred: in the middle, else in the upper left corner.

    Returns:
        (F,) int64: cells row-major, images in order.
    """
    height, width = canvas
    rows, columns = torch.tensor(grids, dtype=torch.int64).view(-1, 2).unbind(1)  # (I,) each
    image, cell = ragged(rows * columns)  # (F,) each
    top = (height - rows) // 2 if centred else torch.zeros_like(rows)
    left = (width - columns) // 2 if centred else torch.zeros_like(columns)
    y = top[image] + cell // columns[image]
    x = left[image] + cell % columns[image]
    return (image * height + y) * width + x


def unpack(images: PackedImages, layout: ImageLayout) -> Tensor:
    """Pixels of all images, (I, C, H, W), each in the upper left corner, zeros beside it."""
    patch, pool, cell = layout.patch, layout.pool, layout.cell
    rows = max((rows for rows, _ in images.grids), default=0)
    columns = max((columns for _, columns in images.grids), default=0)
    num_windows, _, numel = images.patches.shape
    channels = numel // patch**2
    windows = images.patches.view(num_windows, pool, pool, channels, patch, patch)
    windows = windows.permute(0, 3, 1, 4, 2, 5).reshape(num_windows, channels * cell**2)
    places = cell_places(images.grids, (rows, columns), centred=False)
    canvas = windows.new_zeros(images.num_images * rows * columns, channels * cell**2)
    canvas = canvas.index_copy(0, places.to(windows.device, non_blocking=True), windows)
    grid = canvas.view(images.num_images, rows, columns, channels, cell, cell)
    grid = grid.permute(0, 3, 1, 4, 2, 5)  # (I, C, rows, cell, columns, cell)
    return grid.reshape(images.num_images, channels, rows * cell, columns * cell)


def onto_squares(pixels: Tensor, sizes: Grids, targets: Grids, side: int, step: int) -> Tensor:
    """Resize every image and centre it on a square of zeros.

    Args:
        pixels: (I, C, H, W), each image in the upper left corner.
        sizes: (height, width) of every image in pixels.
        targets: (height, width) to resize each to, at most `side`.
        side: N.
        step: margins are whole multiples of it, so that cells of that side are never cut.

    Returns:
        (I, C, N, N).
    """
    table = torch.tensor([(*a, *b) for a, b in zip(sizes, targets, strict=True)]).view(-1, 4)
    height, width, tall, wide = table.to(pixels.device, non_blocking=True).unbind(1)  # (I,)
    down = cubic_weights(height, tall, pixels.shape[2], side, step).to(pixels.dtype)  # (I, N, H)
    right = cubic_weights(width, wide, pixels.shape[3], side, step).to(pixels.dtype)  # (I, N, W)
    wide_pixels = pixels @ right.transpose(1, 2)[:, None]  # (I, C, H, N)
    return down[:, None] @ wide_pixels  # (I, C, N, N)


def cubic_weights(sizes: Tensor, targets: Tensor, longest: int, side: int, step: int) -> Tensor:
    """What to multiply lines of pixels with to resize and centre them.

    Args:
        sizes: pixels of every line, (I,), at most `longest`.
        targets: pixels to make of them, (I,), at most `side`.
        longest: pixels the lines are stored in.
        side: pixels of the result.
        step: margins are whole multiples of it.

    Returns:
        (I, side, longest): rows sum to 1, or are all 0 in the margins.

    Source:
        Keys 1981, with a = -1/2, widened by the scale when shrinking: Pillow's `BICUBIC`.
    """
    scale = (sizes / targets)[:, None, None]  # (I, 1, 1)
    margin = ((side - targets) // (2 * step) * step)[:, None]  # (I, 1)
    place = torch.arange(side, device=sizes.device) - margin  # (I, N)
    source = torch.arange(longest, device=sizes.device)  # (L,)
    centre = (place[:, :, None] + 0.5) * scale  # (I, N, 1)
    distance = ((source + 0.5 - centre) / scale.clamp(min=1)).abs()  # (I, N, L)
    near = (1.5 * distance - 2.5) * distance**2 + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    weights = torch.where(distance < 1, near, torch.where(distance < 2, far, 0.0))
    weights = weights * (source < sizes[:, None, None])
    weights = weights / weights.sum(2, keepdim=True)
    inside = (place >= 0) & (place < targets[:, None])  # (I, N)
    return torch.where(inside[:, :, None], weights, 0.0)
