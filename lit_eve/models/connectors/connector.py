"""What every connector offers.

Shapes: I images, L sets of features, P features an image in each, D their width, Q tokens an image,
E width of the decoder.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from math import isqrt

from torch import Tensor, nn


class Connector(nn.Module, ABC):
    """Features of an encoder's layers, under its prompts if it takes some, to visual tokens."""

    num_tokens: int
    """Q, whatever the image's size."""
    out_width: int
    """E."""

    @abstractmethod
    def forward(self, states: Sequence[Tensor]) -> Tensor:
        """L sets of (I, P, D) to (I, Q, E)."""


def only(states: Sequence[Tensor]) -> Tensor:
    """The features of the one layer that was chosen.

    Raises:
        ValueError: if there are several, of which some would be ignored.
    """
    if len(states) != 1:
        raise ValueError(
            f"this connector reads one layer of the encoder, under one prompt, and was given "
            f"{len(states)}: all but one would be ignored. Choose one of vision_encoder.layers and "
            "of its prompts, or the connector `depth_breadth`, which joins them."
        )
    return states[0]


def square_side(cells: int) -> int:
    """Cells a side of a square grid."""
    side = isqrt(cells)
    if side * side != cells:
        raise ValueError(
            f"{cells} features form no square grid, which this connector works on. Choose a number "
            "that is a square, or another connector."
        )
    return side
