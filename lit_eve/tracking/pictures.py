"""Pictures for people: grids with captions, answers beside what was expected, boxes. Pillow only.

Small images are enlarged by a whole factor without smoothing, so that their pixels stay visible.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Picture = Image.Image | NDArray[np.generic]
Box = tuple[float, float, float, float]
Colour = tuple[int, int, int]

PAPER: Colour = (255, 255, 255)
CARD: Colour = (246, 247, 249)
INK: Colour = (31, 39, 51)
GREY: Colour = (107, 118, 134)
GREEN: Colour = (22, 138, 85)
RED: Colour = (206, 52, 56)
BLUE: Colour = (38, 103, 214)

GAP = 12
TEXT = 15
LARGE = 36
LONGEST = 400
LINE = 20


@dataclass(frozen=True)
class Answer:
    """One question about one picture, with what was expected and what the model gave.

    Boxes are (left, top, right, bottom) as shares of the picture's sides, 0 to 1.
    """

    picture: Picture
    question: str
    expected: str
    given: str
    correct: bool
    kind: str = ""
    expected_box: Box | None = None
    given_box: Box | None = None


def as_image(picture: Picture) -> Image.Image:
    """A picture as RGB.

    Args:
        picture: a Pillow image, or an array (H, W), (H, W, 1) or (H, W, 3): bytes 0 to 255, or
            real numbers 0 to 1 (what lies outside is clipped).

    Raises:
        ValueError: if the array has another shape.
    """
    if isinstance(picture, Image.Image):
        return picture.convert("RGB")
    array = picture[..., None] if picture.ndim == 2 else picture
    if array.ndim != 3 or array.shape[2] not in (1, 3):
        raise ValueError(
            f"an array of shape {picture.shape} is no picture: (H, W), (H, W, 1) or (H, W, 3) "
            "is needed. Move the channels of a torch image to the end: image.permute(1, 2, 0)."
        )
    if np.issubdtype(array.dtype, np.floating):
        array = np.clip(np.nan_to_num(array.astype(np.float64)), 0, 1) * 255 + 0.5
    return Image.fromarray(np.repeat(array.astype(np.uint8), 3 // array.shape[2], axis=2))


def boxed(picture: Picture, boxes: Sequence[tuple[Box, Colour]]) -> Image.Image:
    """A copy with rectangles drawn on it.

    Args:
        picture: what they are drawn on.
        boxes: (left, top, right, bottom) as shares of the sides, each with its colour. Parts
            outside the picture are cut off; a box of no area becomes a point.
    """
    image = as_image(picture).copy()
    draw = ImageDraw.Draw(image)
    width, height = image.size
    line = 1 + min(width, height) // 64
    for (left, top, right, bottom), colour in boxes:
        x = sorted(min(max(share, 0.0), 1.0) * (width - 1) for share in (left, right))
        y = sorted(min(max(share, 0.0), 1.0) * (height - 1) for share in (top, bottom))
        draw.rectangle((x[0], y[0], x[1], y[1]), outline=colour, width=line)
    return image


def grid(
    pictures: Sequence[Picture],
    captions: Sequence[str] = (),
    columns: int | None = None,
    cell: int = 192,
) -> Image.Image:
    """Pictures side by side, each in a square of `cell` pixels with its caption below.

    Args:
        pictures: at least one.
        captions: as many as pictures, or none.
        columns: pictures a row, by default the most square arrangement.
        cell: side of a picture's square in pixels.

    Raises:
        ValueError: if there is no picture, or the captions do not match.
    """
    if not pictures:
        raise ValueError("a grid needs at least one picture, got none.")
    if captions and len(captions) != len(pictures):
        raise ValueError(
            f"{len(captions)} captions for {len(pictures)} pictures: give one each, or none."
        )
    columns = min(columns or int(np.ceil(np.sqrt(len(pictures)))), len(pictures))
    wrapped = [_wrap(caption, cell, lines=2) for caption in captions]
    below = max((len(lines) for lines in wrapped), default=0) * LINE + (6 if wrapped else 0)
    rows = -(-len(pictures) // columns)
    width, height = cell + GAP, cell + below + GAP
    sheet = Image.new("RGB", (columns * width + GAP, rows * height + GAP), PAPER)
    draw = ImageDraw.Draw(sheet)
    for index, picture in enumerate(pictures):
        x, y = GAP + index % columns * width, GAP + index // columns * height
        sheet.paste(_square(as_image(picture), cell), (x, y))
        for number, line in enumerate(wrapped[index] if wrapped else ()):
            draw.text((x, y + cell + 4 + number * LINE), line, INK, font=_font(TEXT))
    return sheet


def answer_sheet(answers: Sequence[Answer], columns: int = 3, cell: int = 144) -> Image.Image:
    """Cards with picture, question, expected and given answer: green if right, red if wrong.

    The expected box is drawn in blue, the given one in the colour of the verdict.

    Args:
        answers: at least one.
        columns: cards a row.
        cell: side of a card's picture in pixels.

    Raises:
        ValueError: if there is no answer.
    """
    if not answers:
        raise ValueError("a sheet of answers needs at least one answer, got none.")
    columns = min(columns, len(answers))
    width, height = cell * 3 + GAP, cell + 2 * GAP
    rows = -(-len(answers) // columns)
    size = (columns * (width + GAP) + GAP, rows * (height + GAP) + GAP)
    sheet = Image.new("RGB", size, PAPER)
    for index, answer in enumerate(answers):
        x = GAP + index % columns * (width + GAP)
        y = GAP + index // columns * (height + GAP)
        sheet.paste(_card(answer, (width, height), cell), (x, y))
    return sheet


def answer_grid(
    answers: Sequence[Answer], columns: int | None = None, cell: int = 240
) -> Image.Image:
    """Pictures with the given answer in large letters, to be read at a glance in a small card.

    Green is right; red is wrong, and the line below says what was expected.

    Args:
        answers: at least one.
        columns: pictures a row, by default what makes the grid square, as the UI's cards are.
        cell: side of a picture's square in pixels.

    Raises:
        ValueError: if there is no answer.
    """
    if not answers:
        raise ValueError("a grid of answers needs at least one answer, got none.")
    width, height = cell + GAP, cell + 2 * LARGE + 2 * GAP
    square = int(np.ceil(np.sqrt(len(answers) * height / width)))
    columns = min(columns or square, len(answers))
    rows = -(-len(answers) // columns)
    sheet = Image.new("RGB", (columns * width + GAP, rows * height + GAP), PAPER)
    draw = ImageDraw.Draw(sheet)
    for index, answer in enumerate(answers):
        x, y = GAP + index % columns * width, GAP + index // columns * height
        sheet.paste(_with_boxes(answer, cell), (x, y))
        verdict = GREEN if answer.correct else RED
        draw.rectangle((x, y + cell, x + cell - 1, y + cell + 4), fill=verdict)
        lines = [(answer.given or "(nothing)", verdict)]
        if not answer.correct:
            lines.append((f"not {answer.expected}", GREY))
        for number, (text, colour) in enumerate(lines):
            line = _wrap(text, cell, lines=1, size=LARGE)[0]
            draw.text((x, y + cell + 8 + number * (LARGE + 4)), line, colour, font=_font(LARGE))
    return sheet


def _card(answer: Answer, size: tuple[int, int], cell: int) -> Image.Image:
    verdict = GREEN if answer.correct else RED
    card = Image.new("RGB", size, CARD)
    draw = ImageDraw.Draw(card)
    draw.rectangle((0, 0, 4, size[1]), fill=verdict)
    card.paste(_with_boxes(answer, cell), (GAP, GAP))
    x, y = cell + 2 * GAP, GAP
    room = size[0] - x - GAP
    for line in _wrap(answer.question, room, lines=3):
        draw.text((x, y), line, INK, font=_font(TEXT))
        y += LINE
    bottom = GAP + cell - 2 * LINE
    for label, text, colour in (
        ("expected", answer.expected, INK),
        ("given", answer.given or "(nothing)", verdict),
    ):
        draw.text((x, bottom), label, GREY, font=_font(TEXT - 2))
        draw.text((x + 68, bottom - 1), _wrap(text, room - 68, lines=1)[0], colour, _font(TEXT))
        bottom += LINE
    if answer.kind:
        draw.text((x, GAP + cell - 3 * LINE), answer.kind, GREY, font=_font(TEXT - 2))
    return card


def _with_boxes(answer: Answer, cell: int) -> Image.Image:
    """The picture in its square, the expected box in blue, the given one as the verdict."""
    verdict = GREEN if answer.correct else RED
    pairs = ((answer.expected_box, BLUE), (answer.given_box, verdict))
    boxes = [(box, colour) for box, colour in pairs if box is not None]
    return _centred(boxed(_enlarged(as_image(answer.picture), cell), boxes), cell)


def _square(image: Image.Image, cell: int) -> Image.Image:
    return _centred(_enlarged(image, cell), cell)


def _enlarged(image: Image.Image, cell: int) -> Image.Image:
    """As large as fits: by a whole factor if it is smaller than the cell, else shrunk."""
    largest = max(image.size)
    if largest <= cell:
        factor = cell // largest
        return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    share = cell / largest
    size = (max(1, round(image.width * share)), max(1, round(image.height * share)))
    return image.resize(size, Image.Resampling.LANCZOS)


def _centred(image: Image.Image, cell: int) -> Image.Image:
    square = Image.new("RGB", (cell, cell), CARD)
    square.paste(image, ((cell - image.width) // 2, (cell - image.height) // 2))
    return square


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _wrap(text: str, room: int, lines: int, size: int = TEXT) -> list[str]:
    """The text in at most `lines` lines of `room` pixels; what does not fit ends in dots."""
    font = _font(size)
    wrapped = [""]
    for word in text[:LONGEST].split():
        longer = f"{wrapped[-1]} {word}".strip()
        if font.getlength(longer) <= room or not wrapped[-1]:
            wrapped[-1] = longer
        else:
            wrapped.append(word)
    if len(wrapped) > lines:
        wrapped = [*wrapped[: lines - 1], " ".join(wrapped[lines - 1 :])]
    return [_cut(line, room, font) for line in wrapped]


def _cut(line: str, room: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    if font.getlength(line) <= room:
        return line
    fits = bisect_left(
        range(len(line)), True, key=lambda n: font.getlength(line[:n] + "...") > room
    )
    return line[: max(fits - 1, 0)].rstrip() + "..."
