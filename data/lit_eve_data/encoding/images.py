"""Pixels to patches: sizes, resizing, and the images of a batch cut into windows and patches.

Shapes: H, W pixels, C = 3 channels, P patch side, S = pool * pool patches a window, I images,
M windows over all images, V visual tokens over all images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, sqrt
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from lit_eve_data.batches import ImageLayout, PackedImages
from lit_eve_data.disk.records import Pixels


@dataclass(frozen=True)
class Native:
    """Keep the size, rounded to whole cells."""

    def target(self, height: int, width: int, cell: int) -> tuple[int, int]:
        """Height and width to resize to."""
        return _whole(height, cell), _whole(width, cell)


@dataclass(frozen=True)
class LongestEdge:
    """Scale the longer side to `edge`, the other one in proportion.

    With `rounding` up and `multiple` 14 * edge / 336 the sizes are those of EVE's code.

    Args:
        edge: pixels of the longer side.
        rounding: of the shorter side to a whole number of cells.
        multiple: what both sides are multiples of instead of the cell, in pixels.
    """

    edge: int
    rounding: Literal["nearest", "up"] = "nearest"
    multiple: int | None = None

    def target(self, height: int, width: int, cell: int) -> tuple[int, int]:
        """Height and width to resize to."""
        unit, longer = self.multiple or cell, max(height, width)
        if self.rounding == "up":
            rows, columns = (-(-self.edge * s // (longer * unit)) * unit for s in (height, width))
            return rows, columns
        scale = self.edge / longer
        return _whole(height * scale, unit), _whole(width * scale, unit)


@dataclass(frozen=True)
class Area:
    """Bring the number of pixels to that of a square of `max_side`, keeping the shape.

    Args:
        max_side: side of that square in pixels.
        rule: within: only larger images are scaled, and never stay above the limit.
            eve_v2_training: only larger images are scaled, sides rounded to the nearest cell.
            eve_v2_inference: smaller ones are scaled up too, and sides rounded up.

    Source:
        The last two: EVEv2's code, whose training and inference disagree.
    """

    max_side: int
    rule: Literal["within", "eve_v2_training", "eve_v2_inference"] = "within"

    def target(self, height: int, width: int, cell: int) -> tuple[int, int]:
        """Height and width to resize to."""
        ratio = sqrt(width * height) / self.max_side
        if self.rule == "eve_v2_inference":
            return ceil(height / ratio / cell) * cell, ceil(width / ratio / cell) * cell
        if self.rule == "eve_v2_training":
            ratio = max(1.0, ratio)  # and halves go to the even neighbour, as Python rounds
            rows, columns = (max(1, round(side / ratio / cell)) for side in (height, width))
            return rows * cell, columns * cell
        scale = min(1.0, self.max_side / (height * width) ** 0.5)
        rows, columns = _whole(height * scale, cell), _whole(width * scale, cell)
        while rows * columns > self.max_side**2 and max(rows, columns) > cell:
            rows, columns = (rows - cell, columns) if rows >= columns else (rows, columns - cell)
        return rows, columns


@dataclass(frozen=True)
class Square:
    """Scale to a square of `edge`, whatever the aspect ratio: for comparison with older models."""

    edge: int

    def target(self, height: int, width: int, cell: int) -> tuple[int, int]:
        """Height and width to resize to."""
        side = _whole(self.edge, cell)
        return side, side


SizePolicy = Native | LongestEdge | Area | Square


def _whole(side: float, cell: int) -> int:
    """The multiple of `cell` nearest to `side`, at least one."""
    return max(1, int(side / cell + 0.5)) * cell


Resampler = Literal["pillow", "torch"]
"""Who scales pictures: see `resize`."""


def resize(pixels: Pixels, height: int, width: int, by: Resampler = "pillow") -> Pixels:
    """Bicubic with antialiasing, (H, W, 3) to (height, width, 3), both uint8.

    Args:
        pixels: the picture.
        height: of the result.
        width: of the result.
        by: pillow: what published models were trained on. torch: the same filter in whole numbers
            and an eighth of the time, at most 2 of 255 apart; what experiments take.
    """
    if pixels.shape[:2] == (height, width):
        return pixels
    if by == "pillow":
        image = Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)
        return np.asarray(image)
    own = pixels if pixels.flags.writeable else pixels.copy()  # torch would warn of the others
    # Strides of channels last, also of the first axis: else torch would copy in and out of it.
    given = torch.from_numpy(own)[None].permute(0, 3, 1, 2)  # (1, 3, H, W)
    scaled = torch.nn.functional.interpolate(
        given, size=(height, width), mode="bicubic", antialias=True
    )
    return np.ascontiguousarray(scaled[0].permute(1, 2, 0).numpy())


@dataclass(frozen=True)
class ImageCutter:
    """Turns images into what the patch embedding reads.

    Args:
        layout: how the model cuts an image.
        size: what size an image gets.
        mean: of each channel, on pixels in [0, 1].
        std: of each channel, on pixels in [0, 1].
        resampler: who scales images, see `resize`.
    """

    layout: ImageLayout
    size: SizePolicy
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    resampler: Resampler = "pillow"

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of windows of an image of that size."""
        rows, columns = self.size.target(height, width, self.layout.cell)
        return rows // self.layout.cell, columns // self.layout.cell

    def num_tokens(self, height: int, width: int) -> int:
        """Visual tokens of an image of that size."""
        return self.layout.num_tokens(*self.grid(height, width))

    def fit(self, pixels: Pixels) -> Pixels:
        """The image at its target size."""
        height, width = self.size.target(pixels.shape[0], pixels.shape[1], self.layout.cell)
        return resize(pixels, height, width, self.resampler)

    def cut(self, images: Sequence[Pixels]) -> PackedImages:
        """The images of a batch, each resized, as normalised patches and sources of tokens."""
        fitted = [self.fit(image) for image in images]
        cell = self.layout.cell
        grids = tuple((i.shape[0] // cell, i.shape[1] // cell) for i in fitted)
        counts = np.array([rows * columns for rows, columns in grids], np.int64)
        patches = np.empty((int(counts.sum()), self.layout.pool**2, self._depth), np.uint8)
        start = 0
        for image, count in zip(fitted, counts.tolist(), strict=True):
            self._write_windows(image, patches[start : start + count])
            start += count
        return PackedImages(
            patches=self._normalise(torch.from_numpy(patches)),
            window_image=torch.from_numpy(np.repeat(np.arange(len(grids)), counts)),
            visual_source=torch.from_numpy(visual_source(grids, self.layout)),
            grids=grids,
        )

    @property
    def _depth(self) -> int:
        return 3 * self.layout.patch**2

    def _write_windows(self, image: Pixels, out: NDArray[np.uint8]) -> None:
        """Cut one image into `out`, its slice of the batch's patches."""
        pool, side = self.layout.pool, self.layout.patch
        rows, columns = image.shape[0] // self.layout.cell, image.shape[1] // self.layout.cell
        tiles = image.reshape(rows, pool, side, columns, pool, side, 3)
        tiles = tiles.transpose(0, 3, 1, 4, 6, 2, 5)  # (rows, columns, pool, pool, 3, P, P)
        out.reshape(tiles.shape)[...] = tiles

    def _normalise(self, patches: torch.Tensor) -> torch.Tensor:
        """uint8 (M, S, 3*P*P) to float32: (x / 255 - mean) / std of each channel."""
        mean, std = torch.tensor(self.mean), torch.tensor(self.std)
        scale = (1 / (255 * std)).repeat_interleave(self.layout.patch**2)  # (3*P*P,)
        shift = (mean / std).repeat_interleave(self.layout.patch**2)
        return patches.float().mul_(scale).sub_(shift)


def visual_source(grids: Sequence[tuple[int, int]], layout: ImageLayout) -> NDArray[np.int64]:
    """For each visual token its row in `cat([windows (M), cls (I), row_end (1)])`, (V,)."""
    if layout.fixed is not None:
        return np.arange(layout.fixed * len(grids))
    windows = sum(rows * columns for rows, columns in grids)
    row_end = windows + len(grids)
    source = np.full(sum(layout.num_tokens(*grid) for grid in grids), row_end, np.int64)
    slot = window = 0
    for number, (rows, columns) in enumerate(grids):
        if layout.cls:
            source[slot] = windows + number
            slot += 1
        width = columns + int(layout.row_end)
        block = source[slot : slot + rows * width].reshape(rows, width)[:, :columns]
        block[...] = np.arange(window, window + rows * columns).reshape(rows, columns)
        slot += rows * width
        window += rows * columns
    return source
