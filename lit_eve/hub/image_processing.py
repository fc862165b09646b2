"""Pictures to what exported models read, as in training.

Shapes: I images, M windows over all images, S patches a window, B pictures of one size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from transformers import BatchFeature
from transformers.image_processing_utils import BaseImageProcessor
from transformers.image_utils import load_image

from lit_eve_data.batches import ImageLayout
from lit_eve_data.encoding.crops import Crop, framed
from lit_eve_data.encoding.images import (
    Area,
    ImageCutter,
    LongestEdge,
    Native,
    Resampler,
    SizePolicy,
    Square,
)
from lit_eve_data.sources.validation import plain_rgb

_SIZES: Mapping[str, type[SizePolicy | Crop]] = {
    "native": Native,
    "longest_edge": LongestEdge,
    "area": Area,
    "square": Square,
    "crop": Crop,
}
_PLAIN = {"patch": 16, "pool": 1, "cls": False, "row_end": False}


class LitEveImageProcessor(BaseImageProcessor):
    """Pictures to normalised patches, each at a size of its own.

    Args:
        layout: `ImageLayout` as plain keys and values.
        size_policy: name of the size policy as `type`, and its numbers.
        image_mean: of each channel, on pixels in [0, 1].
        image_std: of each channel, on pixels in [0, 1].
        resampler: who scales pictures, torch or pillow.
    """

    model_input_names = ["pixel_values", "image_grids"]  # noqa: RUF012  # as its base class

    def __init__(
        self,
        layout: Mapping[str, Any] | None = None,
        size_policy: Mapping[str, Any] | None = None,
        image_mean: Sequence[float] = (0.5, 0.5, 0.5),
        image_std: Sequence[float] = (0.5, 0.5, 0.5),
        resampler: Resampler = "pillow",  # of models exported before there was a choice
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.layout = dict(layout or _PLAIN)
        self.size_policy = dict(size_policy or {"type": "native"})
        self.image_mean, self.image_std = list(image_mean), list(image_std)
        self.resampler = resampler

    @classmethod
    def of(cls, cutter: ImageCutter) -> LitEveImageProcessor:
        """The same as a run's own cutter."""
        size = {"type": _name_of(cutter.size), **vars(cutter.size)}
        return cls(dict(vars(cutter.layout)), size, cutter.mean, cutter.std, cutter.resampler)

    @property
    def cutter(self) -> ImageCutter:
        """What cuts the pictures."""
        mean, std = self.image_mean, self.image_std
        return ImageCutter(
            ImageLayout(**self.layout),
            _policy(self.size_policy),
            (mean[0], mean[1], mean[2]),
            (std[0], std[1], std[2]),
            self.resampler,
        )

    def __call__(  # type: ignore[override]  # no option would be heard
        self, images: Any, return_tensors: str | None = None
    ) -> BatchFeature:
        """See `preprocess`."""
        return self.preprocess(images, return_tensors)

    def preprocess(self, images: Any, return_tensors: str | None = None) -> BatchFeature:
        """Windows of all pictures one after another, (M, S, C*P*P), and their grids, (I, 2).

        Args:
            images: pictures, paths or addresses, nested in any way.
            return_tensors: `pt`, or None for the same.

        Raises:
            ValueError: if another kind of tensor is asked for.
        """
        only_torch(return_tensors)
        cut = self.cutter.cut([np.asarray(picture) for picture in pictures(images)])
        grids = torch.tensor(cut.grids, dtype=torch.int64).view(-1, 2)
        return BatchFeature({"pixel_values": cut.patches, "image_grids": grids})


class LitEvePixelProcessor(BaseImageProcessor):
    """Pictures of one size to pixels in [0, 1], for an image tokenizer.

    Args:
        stride: pixels a side of one cell.
        size_policy: name of the size policy as `type`, and its numbers.
    """

    model_input_names = ["pixel_values"]  # noqa: RUF012  # as its base class

    def __init__(
        self, stride: int = 8, size_policy: Mapping[str, Any] | None = None, **options: Any
    ) -> None:
        super().__init__(**options)
        self.stride = stride
        self.size_policy = dict(size_policy or {"type": "native"})

    @classmethod
    def of(cls, stride: int, size: SizePolicy | Crop) -> LitEvePixelProcessor:
        """The same as a run's own sizes."""
        return cls(stride, {"type": _name_of(size), **vars(size)})

    def __call__(  # type: ignore[override]  # no option would be heard
        self, images: Any, return_tensors: str | None = None
    ) -> BatchFeature:
        """See `preprocess`."""
        return self.preprocess(images, return_tensors)

    def preprocess(self, images: Any, return_tensors: str | None = None) -> BatchFeature:
        """`pixel_values`, (B, 3, H, W) in [0, 1]: sides of whole cells, or the middle of each.

        Args:
            images: pictures, paths or addresses, nested in any way.
            return_tensors: `pt`, or None for the same.

        Raises:
            ValueError: if the pictures get several sizes, or another kind of tensor is asked for.
        """
        only_torch(return_tensors)
        policy, given = _policy(self.size_policy), pictures(images)
        fitted = [framed(np.asarray(picture), policy, self.stride) for picture in given]
        sizes = {pixels.shape for pixels in fitted}
        if len(sizes) != 1:
            raise ValueError(
                f"{len(fitted)} pictures of {len(sizes)} sizes are no one tensor. Encode one size "
                "at a time."
            )
        stacked = torch.from_numpy(np.stack(fitted)).permute(0, 3, 1, 2)  # (B, 3, H, W)
        return BatchFeature({"pixel_values": stacked.float() / 255})


def pictures(images: Any) -> list[Image.Image]:
    """Pictures, arrays, paths or addresses, nested in any way, as one list of RGB pictures.

    They become upright and opaque, as the data rooms make them.

    Raises:
        ValueError: if something is no picture.
    """
    if isinstance(images, (str, Path)):
        found = Image.open(images) if Path(images).is_file() else load_image(str(images))
        return pictures(found)
    if isinstance(images, Image.Image):
        return [plain_rgb(ImageOps.exif_transpose(images))]
    if isinstance(images, np.ndarray):
        return [Image.fromarray(images).convert("RGB")]
    if isinstance(images, (list, tuple)):
        return [picture for item in images for picture in pictures(item)]
    raise ValueError(
        f"a {type(images).__name__} is no picture. Give a PIL image, an array of (H, W, 3) bytes, "
        "a path or an address."
    )


def only_torch(return_tensors: str | None) -> None:
    """Raise ValueError if another kind of tensor is wanted than there is."""
    if return_tensors not in (None, "pt"):
        raise ValueError(f"return_tensors={return_tensors!r}: these models read torch's. Say 'pt'.")


def _name_of(size: SizePolicy | Crop) -> str:
    return next(name for name, policy in _SIZES.items() if isinstance(size, policy))


def _policy(options: Mapping[str, Any]) -> Any:
    return _SIZES[options["type"]](**{k: v for k, v in options.items() if k != "type"})
