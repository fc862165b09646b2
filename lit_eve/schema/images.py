"""How pictures get their size and their scale before the model sees them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from lit_eve.schema.base import FromList, Positive, PositiveReal, Strict

Triple = FromList[tuple[float, float, float]]
PositiveTriple = FromList[tuple[PositiveReal, PositiveReal, PositiveReal]]


class Native(Strict):
    """Every image keeps its own size, rounded to whole cells."""

    type: Literal["native"]


class LongestEdge(Strict):
    """The longer edge becomes `edge`, the shorter follows in proportion, rounded to whole cells."""

    type: Literal["longest_edge"]
    edge: Positive
    """Pixels of the longer edge."""


class Area(Strict):
    """Images above an area shrink to it, edges rounded to whole cells (EVE v2)."""

    type: Literal["area"]
    max_side: Positive
    """Side in pixels of the square whose area is the limit."""


class Square(Strict):
    """Every image is stretched to a square, whatever its shape: the usual encoder's way."""

    type: Literal["square"]
    edge: Positive
    """Pixels of either edge."""


Size = Annotated[Native | LongestEdge | Area | Square, Field(discriminator="type")]
"""A size policy."""


class Images(Strict):
    """Pictures as the model sees them."""

    size: Size = Native(type="native")
    """Size policy: native, longest_edge, area or square."""
    mean: Triple = (0.5, 0.5, 0.5)
    """Subtracted from red, green and blue, pixels going from 0 to 1."""
    std: PositiveTriple = (0.5, 0.5, 0.5)
    """What red, green and blue are then divided by."""
