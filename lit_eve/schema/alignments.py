"""The frozen teacher, and the layer that compares a student with it. Training only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from lit_eve.schema.addresses import Address
from lit_eve.schema.base import Finding, Positive, Strict, written_as
from lit_eve.schema.language_models import heads_divide_width


class PatchAlignment(Strict):
    """Hidden states at image positions, read from several layers, towards the teacher's features.

    Its output is as wide as the teacher's features; `width` is what it works in.
    """

    width: Positive
    """Width the layers' states are projected to."""
    heads: Positive
    """Attention heads of the query over the layers."""
    every: Positive
    """Read every n-th layer, counted from the last."""

    def findings(self) -> Iterator[Finding]:
        """The width is split among the heads."""
        yield from heads_divide_width(self.heads, self.width)


class PretrainedTeacher(Strict):
    """A vision encoder of the Hugging Face hub or of a folder, frozen."""

    type: Literal["clip", "siglip", "dinov2", "vit"]
    source: Address = written_as("from")
    """`hf:owner/name`, or the path of a folder, such as one trained here."""
    layer: int = -2
    """Hidden state to imitate: -1 is the last layer's, 0 the embeddings'."""
    stored: bool = False
    """Read its features where `lit-eve prepare --teacher` left them, instead of running it."""


class RandomTeacher(Strict):
    """A small vision transformer with random weights: nothing to download, little to learn from."""

    type: Literal["random"]
    width: Positive
    """Hidden size, and so the width of the features."""
    depth: Positive
    """Number of layers."""
    heads: Positive
    """Attention heads."""
    patch: Positive
    """Side of a patch in pixels."""
    image: Positive
    """Side in pixels of the square the images are resized to."""
    layer: int = -1
    """Hidden state to imitate: -1 is the last layer's, 0 the embeddings'."""

    def findings(self) -> Iterator[Finding]:
        """Widths, heads, patches and layers have to fit."""
        yield from heads_divide_width(self.heads, self.width)
        if self.image % self.patch:
            yield Finding(
                ("image",),
                f"{self.image} px cannot be cut into patches of {self.patch} px",
                f"Choose a multiple of {self.patch}.",
                (("patch",),),
            )
        if not -self.depth - 1 <= self.layer <= self.depth:
            yield Finding(
                ("layer",),
                f"there is no layer {self.layer} among {self.depth}",
                f"Choose from {-self.depth - 1} to {self.depth}; 0 is the embeddings.",
                (("depth",),),
            )


Teacher = Annotated[PretrainedTeacher | RandomTeacher, Field(discriminator="type")]
"""A frozen vision encoder."""
