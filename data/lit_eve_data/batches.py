"""What the data hands to a task: the contract between `lit_eve_data` and `lit_eve.tasks`.

Shapes: R rows, T token slots a row, I images in the batch, M windows over all images (a window is
the pool x pool square of patches that becomes one visual token), S = pool * pool patches a window,
C channels, P patch side in pixels, V visual tokens over all images, N samples in the batch.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch
from torch import Tensor

IGNORE = -100
"""Label of a token that is not supervised (the value `torch.nn.functional.cross_entropy` skips)."""


@dataclass(frozen=True)
class ImageLayout:
    """How an image becomes visual tokens; the patch embedding states it, the data follows it.

    An image of H x W pixels (multiples of `cell`) has H/cell x W/cell windows. Its visual tokens
    are, in order: one `<CLS>` token if `cls`, then row by row the windows, each row closed by one
    `<SPL>` token if `row_end`. With `fixed` it has that many tokens, whatever its size.
    """

    patch: int
    pool: int
    cls: bool
    row_end: bool
    fixed: int | None = None

    @property
    def cell(self) -> int:
        """Side in pixels of the square that becomes one visual token."""
        return self.patch * self.pool

    def num_tokens(self, rows: int, columns: int) -> int:
        """Visual tokens of an image of `rows` x `columns` windows."""
        if self.fixed is not None:
            return self.fixed
        return int(self.cls) + rows * (columns + int(self.row_end))


@dataclass(frozen=True)
class StepShare:
    """What a piece of an optimizer step divides its sums by; see `PackedBatch`."""

    labels: float
    images: float

    @classmethod
    def of(cls, labels: int, images: int, pieces: int) -> Self:
        """Of a step with so many supervised tokens and images, in so many pieces."""
        return cls(max(1, labels) / pieces, max(1, images) / pieces)


class _Movable:
    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """The same batch with every tensor, nested ones too, on `device`; sizes stay here."""
        moved: dict[str, Any] = {}
        for field in fields(self):  # type: ignore[arg-type]  # every subclass is a dataclass
            value = getattr(self, field.name)
            if isinstance(value, Tensor | _Movable):
                moved[field.name] = value.to(device, non_blocking=non_blocking)
        return replace(self, **moved)  # type: ignore[type-var]


@dataclass(frozen=True)
class PackedImages(_Movable):
    """The images of a batch as patches: any sizes, no canvas, no padding.

    `grids` stays on the host, so that no forward pass has to ask the device for a size.
    """

    patches: Tensor
    """(M, S, C*P*P) normalised pixels. Images in order, windows row-major, patches of a window
    row-major, pixels of a patch channel-major (c, y, x), as a convolution's weight is laid out."""
    window_image: Tensor
    """(M,) int64: the image each window belongs to, non-decreasing."""
    visual_source: Tensor
    """(V,) int64: for each visual token its row in `cat([windows (M), cls (I), row_end (1)])`; just
    0, 1, 2, ... where the layout fixes their number."""
    grids: tuple[tuple[int, int], ...]
    """(rows, columns) of windows of each image."""

    @property
    def num_images(self) -> int:
        """I."""
        return len(self.grids)


@dataclass(frozen=True)
class StoredFeatures(_Movable):
    """What a teacher saw in the images of a batch when their dataset was prepared.

    Shapes: F cells of the teacher's grids over all images, D its width.
    """

    features: Tensor
    """(F, D) float16: cells row-major, images in order."""
    grids: tuple[tuple[int, int], ...]
    """(rows, columns) of cells of each image."""


@dataclass(frozen=True)
class PackedBatch(_Movable):
    """Rows of samples put one after another; attention never crosses a sample's border."""

    token_ids: Tensor
    """(R, T) int64. At image slots and padding the text tokenizer's padding id: not looked at."""
    labels: Tensor
    """(R, T) int64: the token at this very slot if it is supervised, else `IGNORE`. The loss
    shifts; the first token of a sample is never supervised."""
    position_ids: Tensor
    """(R, T) int64: 0, 1, 2, ... restarting at every sample; padding is one more such segment."""
    segment_ids: Tensor
    """(R, T) int64: 1, 2, ... for the samples of a row, 0 for padding."""
    images: PackedImages
    image_slots: Tensor
    """(V,) int64: `row * T + slot` of every visual token, in the order of `visual_source`."""
    sample_segments: Tensor
    """(N, 2) int64: (row, segment id) of every sample, in the order of `kinds`."""
    kinds: tuple[str, ...]
    """Kind of every sample, e.g. `question/read`."""
    labels_share: float
    """Supervised tokens of the whole optimizer step / (ranks * micro-batches of the step): a loss
    summed over this batch and divided by it gives, averaged over ranks and micro-batches, exactly
    the mean over the joined batch, whatever the world size. Known from the plan's lengths."""
    images_share: float
    """Images of the whole optimizer step / (ranks * micro-batches of the step): likewise, for
    losses that are summed over images."""
    num_failed: int = 0
    """Samples of this batch that could not be read: counted, replaced by nothing."""
    seen: StoredFeatures | None = None
    """Of the teacher, if they are streamed instead of being computed."""

    @property
    def num_samples(self) -> int:
        """N."""
        return len(self.kinds)


@dataclass(frozen=True)
class ImageBatch(_Movable):
    """Images of one size, for the image tokenizers."""

    pixels: Tensor
    """(B, 3, H, W) float in [0, 1]."""
