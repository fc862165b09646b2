"""What the model sees and means, on the picture: the grid of visual tokens, boxes of an answer."""

from __future__ import annotations

import re

from PIL import Image, ImageDraw

from lit_eve.metrics.answers import Box
from lit_eve_data.encoding.images import ImageCutter

LEAST_SIDE = 448
"""Pictures are enlarged to it, by a whole factor, so that lines stay thin."""
GRID, SHADE, REGION = (255, 255, 255, 150), (0, 0, 0, 90), (230, 60, 50, 255)
_SIDE = r"(?:0?\.\d+|[01](?:\.\d+)?)"
_BOX = re.compile(rf"(?<![\d.]){_SIDE}(?:[\s,;]+{_SIDE}){{3}}(?![\d.]*\d)")


def boxes_in(text: str) -> list[Box]:
    """Every four numbers of a text that are a box: left, top, right, bottom, as shares of sides."""
    found = [re.findall(_SIDE, match.group()) for match in _BOX.finditer(text)]
    boxes = [Box(*map(float, sides)) for sides in found]
    return [box for box in boxes if box.left < box.right and box.top < box.bottom]


def seen(picture: Image.Image, cutter: ImageCutter, boxes: list[Box], grid: bool) -> Image.Image:
    """A copy of a picture, enlarged if it is small, with what there is to see on it.

    Args:
        picture: in RGB.
        cutter: how it becomes visual tokens.
        boxes: regions an answer names.
        grid: whether to draw the edges of windows, one visual token each.
    """
    factor = max(1, LEAST_SIDE // max(picture.size))
    size = (picture.width * factor, picture.height * factor)
    base = picture.convert("RGBA").resize(size, Image.Resampling.NEAREST)
    layer = Image.new("RGBA", size)
    draw = ImageDraw.Draw(layer)
    if grid and cutter.layout.fixed is None:
        rows, columns = cutter.grid(picture.height, picture.width)
        for row in range(1, rows):
            y = round(row * size[1] / rows)
            draw.line([(0, y), (size[0], y)], fill=GRID)
            draw.line([(0, y + 1), (size[0], y + 1)], fill=SHADE)
        for column in range(1, columns):
            x = round(column * size[0] / columns)
            draw.line([(x, 0), (x, size[1])], fill=GRID)
            draw.line([(x + 1, 0), (x + 1, size[1])], fill=SHADE)
    for box in boxes:
        left, right = (round(side * (size[0] - 1)) for side in (box.left, box.right))
        top, bottom = (round(side * (size[1] - 1)) for side in (box.top, box.bottom))
        draw.rectangle((left, top, right, bottom), outline=REGION, width=3)
    return Image.alpha_composite(base, layer).convert("RGB")


def told(picture: Image.Image, cutter: ImageCutter) -> str:
    """How many visual tokens a picture becomes, in words."""
    tokens = cutter.num_tokens(picture.height, picture.width)
    if cutter.layout.fixed is not None:
        return f"{picture.width} x {picture.height} pixels: always {tokens} visual tokens"
    rows, columns = cutter.grid(picture.height, picture.width)
    others = f" and {tokens - rows * columns} that mark its beginning and its rows"
    return (
        f"{picture.width} x {picture.height} pixels: {rows} x {columns} windows"
        f"{others if tokens > rows * columns else ''}, {tokens} visual tokens"
    )
