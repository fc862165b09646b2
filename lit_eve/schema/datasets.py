"""Where samples come from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal, get_args

from pydantic import Field

from lit_eve.schema.addresses import Address
from lit_eve.schema.base import Entries, Finding, FromList, NonNegativeReal, Positive, Strict
from lit_eve.schema.problems import advise
from lit_eve.schema.units import Count, PositiveCount

SceneKind = Literal[
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
]
Ink = Literal["red", "green", "blue", "black", "orange", "purple"]
Background = Literal["plain", "gradient", "photo"]

GLYPH_GAP = 2
"""Pixels kept free around a digit."""
SCENE_KINDS: tuple[str, ...] = get_args(SceneKind)


class Scenes(Strict):
    """Built in: real handwritten digits on canvases of many sizes, with texts about them."""

    type: Literal["scenes"]
    train: PositiveCount = 24_000
    """Scenes to learn from."""
    val: PositiveCount = 1_000
    """Scenes to watch learning with, from scans that are never trained on."""
    test: PositiveCount = 4_000
    """Scenes of the final evaluation, from scans of their own."""
    cell: Positive = 16
    """Sides of every canvas are multiples of this many pixels."""
    sides: FromList[tuple[Annotated[int, Field(ge=16)], Annotated[int, Field(le=160)]]] = (32, 96)
    """Smallest and largest side of a canvas in pixels, from 16 to 160."""
    aspect: Annotated[float, Field(ge=1, le=4)] = 4.0
    """Largest ratio of the longer to the shorter side."""
    digits: FromList[tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(le=6)]]] = (1, 4)
    """Fewest and most digits on a canvas, from 1 to 6."""
    glyphs: Annotated[
        FromList[tuple[Annotated[int, Field(ge=8, le=160)], ...]], Field(min_length=1)
    ] = (14, 16, 20, 24, 28, 32, 40)
    """Sides in pixels a digit may be drawn at."""
    inks: Annotated[FromList[tuple[Ink, ...]], Field(min_length=1)] = (
        "red",
        "green",
        "blue",
        "black",
    )
    """Colours of the digits."""
    backgrounds: Annotated[FromList[tuple[Background, ...]], Field(min_length=1)] = (
        "plain",
        "gradient",
        "photo",
    )
    """What the digits stand on."""
    kinds: Entries[NonNegativeReal] = Field(
        default_factory=lambda: dict.fromkeys(SCENE_KINDS, 1.0), min_length=1
    )
    """How often each kind of text is written, relative to the others."""
    seed: Count = 0
    """Another number makes other scenes."""

    @property
    def subsets(self) -> tuple[str, ...]:
        """Names that may follow the dataset's own in `data:`."""
        groups = {"captions": "caption/", "questions": "question/"}
        used = [kind for kind, weight in self.kinds.items() if weight > 0]
        present = [name for name, start in groups.items() if any(k.startswith(start) for k in used)]
        return (*present, *(kind.rpartition("/")[2] for kind in used))

    def findings(self) -> Iterator[Finding]:
        """Pairs are in order, canvases are whole cells that hold the digits, kinds exist."""
        yield from self._kinds_exist()
        yield from self._digits_fit()
        for key in ("sides", "digits"):
            low, high = getattr(self, key)
            if low > high:
                yield Finding((key,), f"{low} is above {high}", f"Write [{high}, {low}].")
        for index, side in enumerate(self.sides):
            if side % self.cell:
                yield Finding(
                    ("sides", index),
                    f"a side of {side} px is no whole number of cells of {self.cell} px",
                    f"Choose {side // self.cell * self.cell or self.cell} or "
                    f"{(side // self.cell + 1) * self.cell}, or another cell.",
                    (("cell",),),
                )

    def _kinds_exist(self) -> Iterator[Finding]:
        for kind in self.kinds:
            if kind not in SCENE_KINDS:
                yield Finding(
                    ("kinds", kind),
                    f"there is no kind {kind!r}",
                    advise(kind, SCENE_KINDS, "kinds"),
                )
        if not sum(self.kinds.values()):
            yield Finding(
                ("kinds",), "no kind of text would ever be written", "Give one a weight above 0."
            )

    def _digits_fit(self) -> Iterator[Finding]:
        side, fewest, glyph = self.sides[0], self.digits[0], min(self.glyphs) + GLYPH_GAP
        if (side // glyph) ** 2 < fewest:
            yield Finding(
                ("digits", 0),
                f"the smallest canvas, {side} x {side} px, holds {(side // glyph) ** 2} digits",
                "Ask for fewer digits, larger canvases (`sides`) or smaller `glyphs`.",
                (("sides",), ("glyphs",)),
            )


class LitDataSet(Strict):
    """Samples prepared by `lit-eve prepare`, streamed from disk or from an object store."""

    type: Literal["litdata"]
    path: Address
    """Folder or address, such as `s3://lab/llava-665k`."""
    cache: Annotated[float, Field(gt=0)] | None = None
    """Gigabytes that chunks of a dataset at a URL may take on this machine; 50 if absent."""

    @property
    def subsets(self) -> None:
        """Written in the dataset's manifest, so not known before it is opened."""
        return None

    def findings(self) -> Iterator[Finding]:
        """Only what lies elsewhere is kept here for a while."""
        if self.cache is not None and "://" not in self.path:
            yield Finding(
                ("cache",),
                f"{self.path} is a folder, whose chunks are read where they lie",
                "Take `cache` out.",
                (("path",),),
            )


Dataset = Annotated[Scenes | LitDataSet, Field(discriminator="type")]
"""A dataset."""
