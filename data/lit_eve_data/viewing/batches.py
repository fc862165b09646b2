"""Batches as a model gets them, drawn: rows with their samples, pictures, words and loss mask.

Shapes: R rows, T token slots a row, V visual tokens, M windows, P patch side in pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from lit_eve_data.batches import IGNORE, ImageBatch, ImageLayout, PackedBatch
from lit_eve_data.disk.records import Pixels
from lit_eve_data.encoding.images import ImageCutter
from lit_eve_data.encoding.text import ChatText

Colour = tuple[int, int, int]

PAPER: Colour = (255, 255, 255)
CARD: Colour = (246, 247, 249)
INK: Colour = (31, 39, 51)
GREY: Colour = (107, 118, 134)
LEARNT: Colour = (22, 138, 85)
VISUAL: Colour = (38, 103, 214)
GIVEN: Colour = (190, 197, 207)
WINDOW: Colour = (255, 255, 255)
PATCH: Colour = (170, 180, 195)
_COLUMNS = 4
_WIDTH, _GAP, _LINE, _SIZE = 300, 12, 18, 13
_PICTURE = 160  # pixels of a picture's longer side
_LONGEST = 14  # lines of words of a sample


@dataclass(frozen=True)
class _Run:
    """Slots that stand together and are of one sort."""

    words: str
    colour: Colour


def draw_rows(
    batch: PackedBatch, text: ChatText, cutter: ImageCutter, rows: int = 3, samples: int = 8
) -> Image.Image:
    """The first rows of a batch: a bar of all slots, and below it a card for each sample.

    Green is learnt, grey only read, blue the slots of a picture, white empty; a dark line begins a
    sample. Pictures show the windows that become visual tokens, and thinner the patches in them.

    Args:
        batch: on any device.
        text: whose tokens they are.
        cutter: that cut the pictures.
        rows: most rows.
        samples: most samples of a row that get a card.
    """
    batch = batch.to("cpu")
    pictures, visual = _pictures(batch, cutter), _visual(batch, cutter.layout)
    drawn = [
        _row(batch, number, text, visual[number], pictures, samples)
        for number in range(min(rows, len(batch.token_ids)))
    ]
    return _stacked(drawn)


def draw_images(batch: ImageBatch, count: int = 16) -> Image.Image:
    """The first pictures of a batch of one size, side by side."""
    pixels = batch.pixels[:count].detach().cpu().clamp(0, 1).mul(255).round().byte()
    shown = [Image.fromarray(one.permute(1, 2, 0).numpy()) for one in pixels]
    columns = max(1, int(np.ceil(np.sqrt(len(shown)))))
    return _table([_enlarged(one, _PICTURE) for one in shown], columns)


def _row(
    batch: PackedBatch,
    row: int,
    text: ChatText,
    visual: NDArray[np.int64],
    pictures: Sequence[Image.Image],
    most: int,
) -> Image.Image:
    segments = batch.segment_ids[row].numpy()  # (T,)
    learnt = batch.labels[row].numpy() != IGNORE
    count = int(segments.max())
    used = int((segments > 0).sum())
    head = (
        f"row {row}: {count} samples, {used} of {len(segments)} slots, "
        f"{int((visual >= 0).sum())} visual, {int(learnt.sum())} learnt"
    )
    cards = []
    for segment in range(1, min(count, most) + 1):
        places = np.flatnonzero(segments == segment)
        shown = [pictures[n] for n in dict.fromkeys(visual[places].tolist()) if n >= 0]
        runs = _runs(batch.token_ids[row].numpy(), visual, learnt, places, text)
        kind = batch.kinds[_sample(batch, row, segment)]
        cards.append(_card(f"{segment}  {kind}  {len(places)} slots", shown, list(runs)))
    rest = [] if count <= most else [_lines([_Run(f"and {count - most} more", GREY)])]
    width = _COLUMNS * (_WIDTH + _GAP)
    return _stacked(
        [
            _lines([_Run(head, INK)], width),
            _bar(segments, visual, learnt, width - _GAP),
            _table(cards, _COLUMNS),
            *rest,
        ],
        gap=6,
    )


def _visual(batch: PackedBatch, layout: ImageLayout) -> NDArray[np.int64]:
    """(R, T) the picture that each slot shows, -1 where there are words."""
    marks = np.full(batch.token_ids.numel(), -1, np.int64)
    counts = [layout.num_tokens(*grid) for grid in batch.images.grids]
    marks[batch.image_slots.numpy()] = np.repeat(np.arange(len(counts)), counts)
    return marks.reshape(batch.token_ids.shape)


def _sample(batch: PackedBatch, row: int, segment: int) -> int:
    wanted = batch.sample_segments.numpy() == (row, segment)
    return int(np.flatnonzero(wanted.all(axis=1))[0])


def _runs(
    ids: NDArray[np.int64],
    visual: NDArray[np.int64],
    learnt: NDArray[np.bool_],
    places: NDArray[np.int64],
    text: ChatText,
) -> Iterator[_Run]:
    """The slots of a sample as words, in stretches of one sort."""

    def sort(place: int) -> tuple[int, bool]:
        return int(visual[place]), bool(learnt[place])

    for (picture, is_learnt), run in groupby(places.tolist(), sort):
        slots = list(run)
        if picture >= 0:
            yield _Run(f"[{len(slots)} visual tokens]", VISUAL)
        else:
            words = text.tokenizer.decode(ids[slots].tolist(), skip_special_tokens=False)
            yield _Run(words, LEARNT if is_learnt else INK)


def _pictures(batch: PackedBatch, cutter: ImageCutter) -> list[Image.Image]:
    """What the model sees of every picture, with the borders of its windows and patches."""
    layout, start, shown = cutter.layout, 0, []
    scale = np.array(cutter.std).repeat(layout.patch**2)  # (3*P*P,)
    shift = np.array(cutter.mean).repeat(layout.patch**2)
    for rows, columns in batch.images.grids:
        patches = batch.images.patches[start : start + rows * columns].float().numpy()
        start += rows * columns
        pixels = (patches * scale + shift).clip(0, 1) * 255  # (M, S, 3*P*P)
        shape = (rows, columns, layout.pool, layout.pool, 3, layout.patch, layout.patch)
        tiles = pixels.reshape(shape).transpose(0, 2, 5, 1, 3, 6, 4)
        whole = tiles.reshape(rows * layout.cell, columns * layout.cell, 3)
        shown.append(_gridded(whole.round().astype(np.uint8), layout.cell, layout.patch))
    return shown


def _gridded(pixels: Pixels, cell: int, patch: int) -> Image.Image:
    image = _enlarged(Image.fromarray(pixels), _PICTURE)
    factor = image.width / pixels.shape[1]
    draw = ImageDraw.Draw(image, "RGBA")
    for side, colour in ((patch, (*PATCH, 90)), (cell, (*WINDOW, 210))):
        if side * factor < 4:  # lines would hide the picture
            continue
        for x in range(side, pixels.shape[1], side):
            draw.line((x * factor, 0, x * factor, image.height), fill=colour)
        for y in range(side, pixels.shape[0], side):
            draw.line((0, y * factor, image.width, y * factor), fill=colour)
    return image


def _bar(
    segments: NDArray[np.int64], visual: NDArray[np.int64], learnt: NDArray[np.bool_], width: int
) -> Image.Image:
    """All slots of a row from left to right."""
    colours = np.full((len(segments), 3), PAPER, np.uint8)
    colours[segments > 0] = GIVEN
    colours[learnt] = LEARNT
    colours[visual >= 0] = VISUAL
    bar = Image.fromarray(colours[None]).resize((width, 14), Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(bar)
    for place in np.flatnonzero(np.diff(segments, prepend=0)).tolist():
        x = place * width // len(segments)
        draw.line((x, 0, x, 14), fill=INK)
    draw.rectangle((0, 0, width - 1, 13), outline=GREY)
    return bar


def _card(head: str, pictures: Sequence[Image.Image], runs: list[_Run]) -> Image.Image:
    inside = _WIDTH - 2 * _GAP
    parts = [_lines([_Run(head, GREY)], inside), *pictures, _lines(runs, inside)]
    height = sum(part.height + 4 for part in parts) + 2 * _GAP
    card = Image.new("RGB", (_WIDTH, height), CARD)
    y = _GAP
    for part in parts:
        card.paste(part, (_GAP, y))
        y += part.height + 4
    return card


def _lines(runs: Sequence[_Run], width: int = _WIDTH) -> Image.Image:
    """Words in their colours, broken into lines."""
    font, lines, x = _font(), [list[tuple[float, str, Colour]]()], 0.0
    for run in runs:
        for number, part in enumerate(run.words.split("\n")):
            if number:
                lines, x = [*lines, []], 0.0
            for word in (f"{piece} " for piece in part.split(" ") if piece):
                size = font.getlength(word)
                if x + size > width and x:
                    lines, x = [*lines, []], 0.0
                lines[-1].append((x, word, run.colour))
                x += size
    shown = lines[:_LONGEST]
    sheet = Image.new("RGB", (width, _LINE * len(shown)), CARD)
    draw = ImageDraw.Draw(sheet)
    for number, line in enumerate(shown):
        for place, word, colour in line:
            draw.text((place, number * _LINE), word, colour, font=font)
    if len(lines) > _LONGEST:
        draw.text((width - 20, (len(shown) - 1) * _LINE), "...", GREY, font=font)
    return sheet


def _table(parts: Sequence[Image.Image], columns: int) -> Image.Image:
    """Side by side, row by row; each row as high as its highest part."""
    rows = [parts[start : start + columns] for start in range(0, len(parts), columns)]
    width = max((sum(p.width + _GAP for p in row) for row in rows), default=_GAP)
    height = sum(max(part.height for part in row) + _GAP for row in rows) or _GAP
    sheet, y = Image.new("RGB", (width, height), PAPER), 0
    for row in rows:
        x = 0
        for part in row:
            sheet.paste(part, (x, y))
            x += part.width + _GAP
        y += max(part.height for part in row) + _GAP
    return sheet


def _stacked(parts: Sequence[Image.Image], gap: int = 2 * _GAP) -> Image.Image:
    width = max((part.width for part in parts), default=1) + 2 * _GAP
    height = sum(part.height + gap for part in parts) + gap
    sheet, y = Image.new("RGB", (width, height), PAPER), gap
    for part in parts:
        sheet.paste(part, (_GAP, y))
        y += part.height + gap
    return sheet


def _enlarged(image: Image.Image, side: int) -> Image.Image:
    """By a whole factor if it is small, so that pixels stay what they are; else shrunk."""
    longest = max(image.size)
    if longest <= side:
        factor = side // longest
        return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    share = side / longest
    size = (max(1, round(image.width * share)), max(1, round(image.height * share)))
    return image.resize(size, Image.Resampling.BICUBIC)


@cache
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(_SIZE)
