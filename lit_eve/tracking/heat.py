"""Numbers on the cells of a picture, as colours over it. Pillow only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lit_eve.tracking.pictures import Picture, as_image

_STOPS = ((20, 11, 52), (101, 21, 110), (190, 55, 82), (243, 120, 25), (246, 215, 70))
"""From low to high, each lighter than the one before: readable in grey too."""
COVER = 0.65
"""How much of the picture the colours hide."""
SIDE = 192


def heat(
    picture: Picture,
    values: NDArray[np.floating],
    lowest: float,
    highest: float,
    side: int = SIDE,
) -> Image.Image:
    """A picture under its cells' values: dark is low, yellow is high.

    Args:
        picture: what the cells are cut from.
        values: (rows, columns), the cells that cover the whole picture; NaN counts as low.
        lowest: value of the darkest colour.
        highest: value of the brightest.
        side: of the longer edge, in pixels; a picture smaller than that grows.

    Raises:
        ValueError: if the values are no grid, or the ends are not in order.
    """
    if values.ndim != 2 or not values.size:
        raise ValueError(
            f"values of shape {values.shape} cover no picture: (rows, columns) is needed, with at "
            "least one cell."
        )
    if not lowest < highest:
        raise ValueError(f"no value lies between {lowest} and {highest}: give them in order.")
    image = as_image(picture)
    factor = side / max(image.size)
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    share = np.clip((np.nan_to_num(values, nan=lowest) - lowest) / (highest - lowest), 0, 1)
    cells = Image.fromarray(_colours(share)).resize(size, Image.Resampling.NEAREST)
    grey = image.convert("L").convert("RGB").resize(size, Image.Resampling.NEAREST)
    return Image.blend(grey, cells, COVER)


def _colours(share: NDArray[np.floating]) -> NDArray[np.uint8]:
    """(rows, columns) from 0 to 1 as (rows, columns, 3)."""
    places = np.linspace(0, 1, len(_STOPS))
    channels = [np.interp(share, places, channel) for channel in zip(*_STOPS, strict=True)]
    return np.stack(channels, -1).round().astype(np.uint8)
