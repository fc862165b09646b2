"""How pictures get their size and their scale before the model sees them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from lit_eve.schema.base import Finding, FromList, Positive, PositiveReal, Strict

Triple = FromList[tuple[float, float, float]]
AtLeastOne = Annotated[float, Field(ge=1)]
PositiveTriple = FromList[tuple[PositiveReal, PositiveReal, PositiveReal]]


class Native(Strict):
    """Every image keeps its own size, rounded to whole cells."""

    type: Literal["native"]


class LongestEdge(Strict):
    """The longer edge becomes `edge`, the shorter follows in proportion, rounded to whole cells."""

    type: Literal["longest_edge"]
    edge: Positive
    """Pixels of the longer edge."""
    rounding: Literal["nearest", "up"] = "nearest"
    """How the shorter edge becomes whole cells; EVE rounds up."""
    multiple: Positive | None = None
    """Both edges are multiples of this many pixels; the model's cell when left out. EVE: 28 at 672,
    56 at 1344, so that they are whole cells of its teacher's 336 too."""

    def findings(self) -> Iterator[Finding]:
        """The longer edge is a multiple too."""
        if self.multiple is not None and self.edge % self.multiple:
            below = self.edge // self.multiple * self.multiple
            yield Finding(
                ("edge",),
                f"{self.edge} px is no multiple of {self.multiple}",
                f"Choose {below or self.multiple} or {below + self.multiple}.",
                (("multiple",),),
            )


class Area(Strict):
    """Images take at most the area of a square, in their own shape (EVE v2)."""

    type: Literal["area"]
    max_side: Positive
    """Side in pixels of that square."""
    rule: Literal["within", "eve_v2_training", "eve_v2_inference"] = "within"
    """within: larger images shrink, and never stay above. eve_v2_training: larger images shrink,
    edges rounded to the nearest cell. eve_v2_inference: smaller ones grow too, edges rounded up."""


class Square(Strict):
    """Every image is stretched to a square, whatever its shape: the usual encoder's way."""

    type: Literal["square"]
    edge: Positive
    """Pixels of either edge."""


class Crop(Strict):
    """A square cut out: at random in training, the middle for evaluation."""

    type: Literal["crop"]
    edge: Positive
    """Pixels of either edge."""
    zoom: FromList[tuple[AtLeastOne, AtLeastOne]] = (1.0, 1.0)
    """In training the shorter edge becomes `edge` times a number drawn between these before the
    square is cut, but never larger than it was. DALL-E: [1.125, 1.5]."""
    flip: bool = False
    """Mirror half of the pictures in training; not where they hold writing."""

    def findings(self) -> Iterator[Finding]:
        """From less to more."""
        if self.zoom[0] > self.zoom[1]:
            yield Finding(
                ("zoom",),
                f"{self.zoom[0]:g} to {self.zoom[1]:g} is no range",
                f"Write the smaller first: [{self.zoom[1]:g}, {self.zoom[0]:g}].",
            )


Size = Annotated[Native | LongestEdge | Area | Square, Field(discriminator="type")]
"""A size policy."""

SizeOrCrop = Annotated[Native | LongestEdge | Area | Square | Crop, Field(discriminator="type")]
"""A size policy, or squares cut out: for what is trained on pixels alone."""


class Images(Strict):
    """Pictures as the model sees them."""

    size: Size = Native(type="native")
    """Size policy: native, longest_edge, area or square."""
    mean: Triple = (0.5, 0.5, 0.5)
    """Subtracted from red, green and blue, pixels going from 0 to 1."""
    std: PositiveTriple = (0.5, 0.5, 0.5)
    """What red, green and blue are then divided by."""
    resize: Literal["torch", "pillow"] = "torch"
    """pillow: as published models were trained; torch: eight times as fast, 2 of 255 apart."""
