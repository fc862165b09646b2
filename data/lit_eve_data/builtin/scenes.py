"""Scenes: real handwriting on canvases of many sizes, a pure function of (options, split, index).

Digits stand in lines as in a text, so their reading order is never in doubt: lines do not overlap
vertically, the digits of a line do not overlap horizontally.

Shapes: H, W pixels of a canvas, G side of a glyph.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from random import Random

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lit_eve_data.builtin.digits import Scans, Split, bundled, load_scans

GENERATOR_VERSION = 1
"""Counts changes of what is drawn or written for the same options; part of the fingerprint."""

INKS: dict[str, tuple[int, int, int]] = {
    "red": (205, 25, 25),
    "green": (10, 135, 40),
    "blue": (25, 60, 215),
    "black": (12, 12, 12),
    "orange": (240, 130, 0),
    "purple": (135, 20, 160),
}
BACKGROUNDS = ("plain", "gradient", "photo")
KINDS = (
    "caption/digits",
    "caption/colours",
    "caption/layout",
    "question/read",
    "question/count",
    "question/colour",
    "question/relation",
    "question/sum",
    "question/locate",
    "question/point",
)
_PAPER = 190  # darkest value of a background channel: every ink stays readable on it
_GAP = 2  # pixels kept free around a glyph
Box = tuple[float, float, float, float]


def _default_kinds() -> dict[str, float]:
    return dict.fromkeys(KINDS, 1.0)


@dataclass(frozen=True, kw_only=True)
class ScenesOptions:
    """What a set of scenes is made of.

    Raises:
        ValueError: if the numbers cannot be met by any scene, with what to change.
    """

    train: int = 24_000
    val: int = 1_000
    test: int = 4_000
    cell: int = 16
    """Sides of every canvas are multiples of this many pixels."""
    sides: tuple[int, int] = (32, 96)
    """Smallest and largest side of a canvas in pixels."""
    aspect: float = 4.0
    """Largest ratio of the longer to the shorter side."""
    digits: tuple[int, int] = (1, 4)
    """Fewest and most digits on a canvas; a small canvas holds as many as fit."""
    glyphs: tuple[int, ...] = (14, 16, 20, 24, 28, 32, 40)
    """Sides in pixels a digit may be drawn at."""
    inks: tuple[str, ...] = ("red", "green", "blue", "black")
    backgrounds: tuple[str, ...] = BACKGROUNDS
    kinds: Mapping[str, float] = field(default_factory=_default_kinds)
    """How often each kind of text is written, relative to the others."""
    seed: int = 0

    def __post_init__(self) -> None:
        low, high = self.sides
        if low % self.cell or high % self.cell or not 16 <= low <= high <= 160:
            raise ValueError(
                f"sides {self.sides} must be multiples of the cell ({self.cell} px) between 16 and "
                "160, the smaller first: a canvas is cut into whole cells."
            )
        if not 1 <= self.aspect <= 4:
            raise ValueError(f"aspect is {self.aspect}: choose a ratio from 1 to 4.")
        fewest, most = self.digits
        if not 1 <= fewest <= most <= 6:
            raise ValueError(f"digits {self.digits} must be two numbers from 1 to 6, fewest first.")
        if not self.glyphs or min(self.glyphs) < 8 or max(self.glyphs) > 160:
            raise ValueError(f"glyphs {self.glyphs}: name at least one size from 8 to 160 px.")
        self._check_names()
        room = _capacity(low, low, min(self.glyphs))
        if room < fewest:
            raise ValueError(
                f"a canvas of {low} x {low} px holds {room} digits of {min(self.glyphs)} px, but "
                f"{fewest} or more are asked for: raise sides or lower digits or glyphs."
            )
        if min(self.train, self.val, self.test) < 0:
            raise ValueError("train, val and test count scenes: none of them can be negative.")

    def _check_names(self) -> None:
        for what, given, known in (
            ("inks", self.inks, tuple(INKS)),
            ("backgrounds", self.backgrounds, BACKGROUNDS),
            ("kinds", tuple(self.kinds), KINDS),
        ):
            unknown = sorted(set(given) - set(known))
            if unknown or not given:
                wrong = f"{unknown} are unknown" if unknown else "none is named"
                raise ValueError(f"{what}: {wrong}. Choose among {', '.join(known)}.")
        if min(self.kinds.values()) < 0 or sum(self.kinds.values()) <= 0:
            raise ValueError("kinds need weights of zero or more, at least one of them positive.")


@dataclass(frozen=True)
class SceneObject:
    """One digit on a canvas."""

    digit: int
    ink: str
    box: Box
    """x0, y0, x1, y1 around the ink as shares of width and height."""
    line: int
    """The line it stands in, from 0 at the top."""


@dataclass(frozen=True)
class Scene:
    """A canvas and what stands on it, in reading order."""

    pixels: NDArray[np.uint8]
    """(H, W, 3)"""
    objects: tuple[SceneObject, ...]


def scene_random(options: ScenesOptions, split: Split, index: int) -> Random:
    """The random numbers of one sample: the same for ever, whatever was drawn for the others."""
    return Random(f"{options.seed}/{split}/{index}")


def compose(options: ScenesOptions, split: Split, random: Random) -> Scene:
    """Draw the scene that `random` (see `scene_random`) describes, from the scans of `split`."""
    height, width = random.choice(_shapes(options.cell, options.sides, options.aspect))
    places = _arrange(options, height, width, random)
    canvas = _background(random.choice(options.backgrounds), height, width, random)  # (H, W, 3)
    scans, objects = load_scans(split), []
    for x, y, size, line in places:
        ink = random.choice(options.inks)
        scan = random.randrange(len(scans))
        _blend(canvas[y : y + size, x : x + size], scans.draw(size)[scan], ink)
        box = _box(scans, scan, x, y, size, height, width)
        objects.append(SceneObject(int(scans.digits[scan]), ink, box, line))
    return Scene(canvas.astype(np.uint8), tuple(objects))


def _blend(area: NDArray[np.float32], opacity: NDArray[np.float32], ink: str) -> None:
    """Put ink on `area`, a view into the canvas being drawn, (G, G, 3)."""
    area += opacity[..., None] * (np.array(INKS[ink], np.float32) - area)


def _box(scans: Scans, scan: int, x: int, y: int, size: int, height: int, width: int) -> Box:
    x0, y0, x1, y1 = (float(share) * size for share in scans.bounds[scan])
    return ((x + x0) / width, (y + y0) / height, (x + x1) / width, (y + y1) / height)


@cache
def _shapes(cell: int, sides: tuple[int, int], aspect: float) -> tuple[tuple[int, int], ...]:
    steps = range(sides[0], sides[1] + 1, cell)
    return tuple((h, w) for h in steps for w in steps if max(h, w) <= aspect * min(h, w))


def _capacity(height: int, width: int, glyph: int) -> int:
    """Digits of `glyph` pixels that fit on a canvas in straight lines."""
    return (height // (glyph + _GAP)) * (width // (glyph + _GAP))


def _arrange(
    options: ScenesOptions, height: int, width: int, random: Random
) -> list[tuple[int, int, int, int]]:
    """Places (x, y, size, line) in reading order, shrunk until all of them fit."""
    fitting = [glyph for glyph in sorted(options.glyphs) if glyph + _GAP <= min(height, width)]
    count = min(random.randint(*options.digits), _capacity(height, width, fitting[0]))
    sizes = [random.choice(fitting) for _ in range(count)]
    early = 0.4 if random.random() < 0.5 else 0.0
    lines = _break_lines(sizes, height, width, early, random)
    while lines is None:
        sizes = [fitting[max(0, fitting.index(size) - 1)] for size in sizes]
        early = early if max(sizes) > fitting[0] else 0.0  # nothing left to shrink: fill the lines
        lines = _break_lines(sizes, height, width, early, random)
    places = []
    tops = _spread([max(line) + _GAP for line in lines], height, random)
    for number, (line, top) in enumerate(zip(lines, tops, strict=True)):
        for size, x in zip(line, _spread([s + _GAP for s in line], width, random), strict=True):
            y = top + random.randint(0, max(line) - size)
            places.append((x, y, size, number))
    return places


def _break_lines(
    sizes: list[int], height: int, width: int, early: float, random: Random
) -> list[list[int]] | None:
    """Sizes in lines, each broken early with probability `early`; None if they do not fit."""
    lines: list[list[int]] = [[]]
    for size in sizes:
        used = sum(lines[-1]) + _GAP * len(lines[-1])
        if used + size + _GAP > width or (lines[-1] and random.random() < early):
            lines.append([])
        lines[-1].append(size)
    return lines if sum(max(line) + _GAP for line in lines) <= height else None


def _spread(lengths: list[int], room: int, random: Random) -> list[int]:
    """Starts of intervals in order, the free room between them shared out at random."""
    cuts = sorted(random.randint(0, room - sum(lengths)) for _ in lengths)
    starts, used = [], _GAP // 2
    for cut, length in zip(cuts, lengths, strict=True):
        starts.append(used + cut)
        used += length
    return starts


def _background(kind: str, height: int, width: int, random: Random) -> NDArray[np.float32]:
    """A light canvas, (H, W, 3) float32 from `_PAPER` to 255."""
    if kind == "photo":
        return _photo_crop(height, width, random)
    first = _paper_colour(random)
    canvas = np.empty((height, width, 3), np.float32)
    if kind == "plain":
        canvas[:] = first
        return canvas
    slope = _paper_colour(random) - first
    if random.random() < 0.5:
        canvas[:] = first + np.linspace(0, 1, height, dtype=np.float32)[:, None, None] * slope
    else:
        canvas[:] = first + np.linspace(0, 1, width, dtype=np.float32)[:, None] * slope
    return canvas


def _paper_colour(random: Random) -> NDArray[np.float32]:
    return np.array([random.randint(_PAPER, 255) for _ in range(3)], np.float32)


def _photo_crop(height: int, width: int, random: Random) -> NDArray[np.float32]:
    photo = random.choice(_photos())
    top = random.randint(0, photo.shape[0] - height)
    left = random.randint(0, photo.shape[1] - width)
    return photo[top : top + height, left : left + width].astype(np.float32)


@cache
def _photos() -> tuple[NDArray[np.uint8], ...]:
    """scikit-learn's two photos at full and half size, washed out until ink stands out on them."""
    names = ("china.jpg", "flower.jpg")
    full = [np.asarray(Image.open(bundled(f"images/{name}")), np.float32) for name in names]
    half = [(p[:-1:2, ::2] + p[1::2, ::2] + p[:-1:2, 1::2] + p[1::2, 1::2]) / 4 for p in full]
    scale = (255 - _PAPER) / 255
    return tuple((_PAPER + photo * scale).astype(np.uint8) for photo in full + half)
