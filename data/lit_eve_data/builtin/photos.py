"""Crops of scikit-learn's two photographs: pictures without text, for the image tokenizers.

Every split has a part of the photographs of its own: their left 70 % is for training.

Shapes: H, W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from random import Random

import numpy as np
from PIL import Image

from lit_eve_data.builtin.digits import SHARES, Split, bundled
from lit_eve_data.disk.records import Pixels

GENERATOR_VERSION = 1
"""Counts changes of what is cut for the same options; part of the fingerprint."""
NAMES = ("china.jpg", "flower.jpg")
HEIGHT, WIDTH = 427, 640
_NARROWEST = int(WIDTH * min(SHARES.values()))  # pixels of the parts that are held out


@dataclass(frozen=True, kw_only=True)
class PhotosOptions:
    """What a set of photo crops is made of.

    Raises:
        ValueError: if the numbers cannot be met by any crop, with what to change.
    """

    train: int = 20_000
    val: int = 500
    test: int = 1_000
    cell: int = 16
    """Sides of every crop are multiples of this many pixels."""
    sides: tuple[int, int] = (64, 64)
    """Smallest and largest side of a crop in pixels."""
    scale: tuple[float, float] = (1.0, 1.5)
    """How many pixels of the photograph become one of the crop, drawn between these."""
    seed: int = 0

    def __post_init__(self) -> None:
        low, high = self.sides
        if low % self.cell or high % self.cell or not 0 < low <= high:
            raise ValueError(
                f"sides {self.sides} must be multiples of the cell ({self.cell} px), the smaller "
                "first: a picture is cut into whole cells."
            )
        if not 1 <= self.scale[0] <= self.scale[1]:
            raise ValueError(
                f"scale {self.scale} must be two numbers from 1 up, the smaller first."
            )
        needed = round(high * self.scale[1])
        if needed > _NARROWEST:
            raise ValueError(
                f"crops of {high} px at scale {self.scale[1]} need {needed} px of a photograph, "
                f"but its held-out part is {_NARROWEST} px wide: lower sides or scale."
            )
        if min(self.train, self.val, self.test) < 0:
            raise ValueError("train, val and test count crops: none of them can be negative.")


def crop(options: PhotosOptions, split: Split, index: int) -> Pixels:
    """Crop number `index` of a split, (H, W, 3): the same for ever."""
    random = Random(f"{options.seed}/{split}/{index}")
    photo = random.choice(_photos(split))  # (427, width, 3)
    steps = range(options.sides[0], options.sides[1] + 1, options.cell)
    height, width = random.choice(steps), random.choice(steps)
    scale = random.uniform(*options.scale)
    rows, columns = round(height * scale), round(width * scale)
    top = random.randint(0, photo.shape[0] - rows)
    left = random.randint(0, photo.shape[1] - columns)
    cut = Image.fromarray(photo[top : top + rows, left : left + columns])
    return np.asarray(cut.resize((width, height), Image.Resampling.BICUBIC))


@cache
def _photos(split: Split) -> tuple[Pixels, ...]:
    """The part of every photograph that belongs to `split`."""
    first = round(WIDTH * SHARES["train"])
    second = round(WIDTH * (SHARES["train"] + SHARES["val"]))
    parts = {"train": slice(first), "val": slice(first, second), "test": slice(second, None)}
    whole = (np.asarray(Image.open(bundled(f"images/{name}")), np.uint8) for name in NAMES)
    return tuple(photo[:, parts[split]] for photo in whole)
