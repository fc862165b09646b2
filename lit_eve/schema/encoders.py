"""What stands behind a baseline's vision encoder: a connector, and how the decoder gets to see."""

from __future__ import annotations

from collections.abc import Iterator
from math import isqrt
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from lit_eve.schema.base import Finding, Positive, Strict
from lit_eve.schema.language_models import heads_divide_width
from lit_eve.schema.vision_encoders import VisionEncoder


class Linear(Strict):
    """One linear layer from feature to token (LLaVA)."""

    type: Literal["linear"]

    def num_tokens(self, cells: int, states: int) -> int:
        """Visual tokens of an image."""
        return cells


class Mlp(Strict):
    """Two linear layers with a GELU between (LLaVA-1.5)."""

    type: Literal["mlp"]

    def num_tokens(self, cells: int, states: int) -> int:
        """Visual tokens of an image."""
        return cells


class PixelShuffle(Strict):
    """Squares of features put into one token, then two layers (InternVL)."""

    type: Literal["pixel_shuffle"]
    side: Positive = 2
    """Features a side of the square that becomes one token."""

    def num_tokens(self, cells: int, states: int) -> int:
        """Visual tokens of an image."""
        return cells // self.side**2


class DepthBreadth(Strict):
    """Features of several layers and prompts joined, then linear layers (Florence-VL)."""

    type: Literal["depth_breadth"]
    merge: Literal["channel", "token", "mean"] = "channel"
    """Side by side, one after another, or averaged."""
    depth: Positive = 2
    """Linear layers, with GELUs between; Florence-VL has 3."""

    def num_tokens(self, cells: int, states: int) -> int:
        """Visual tokens of an image."""
        return cells * states if self.merge == "token" else cells


class QFormer(Strict):
    """Learnt queries in a small transformer that looks at the features (BLIP-2)."""

    type: Literal["q_former"]
    queries: Positive = 32
    """Visual tokens of an image."""
    width: Positive = 768
    """Hidden size of the transformer."""
    depth: Positive = 12
    """Its layers; every second one looks at the image."""
    heads: Positive = 12
    """Its attention heads."""

    def num_tokens(self, cells: int, states: int) -> int:
        """Visual tokens of an image."""
        return self.queries

    def findings(self) -> Iterator[Finding]:
        """The width is split among the heads."""
        yield from heads_divide_width(self.heads, self.width)


class Perceiver(Strict):
    """Learnt latents that look at the features and at each other (Flamingo)."""

    type: Literal["perceiver"]
    queries: Positive = 64
    """Visual tokens of an image."""
    depth: Positive = 6
    """Layers."""
    heads: Positive = 8
    """Attention heads, which share the width of the features."""

    def num_tokens(self, cells: int, states: int) -> int:
        """Visual tokens of an image."""
        return self.queries


class CAbstractor(Strict):
    """Residual convolutions, pooling to a smaller grid, more of them (Honeybee)."""

    type: Literal["c_abstractor"]
    queries: Positive = 144
    """Visual tokens of an image, a square number."""
    width: Positive = 1024
    """Channels of the convolutions."""
    depth: Positive = 3
    """Residual blocks before the pooling, and as many after it."""

    def num_tokens(self, cells: int, states: int) -> int:
        """Visual tokens of an image."""
        return self.queries

    def findings(self) -> Iterator[Finding]:
        """Tokens form a square grid."""
        side = isqrt(self.queries)
        if side**2 != self.queries:
            yield Finding(
                ("queries",),
                f"{self.queries} tokens form no square grid",
                f"Choose {side**2} or {(side + 1) ** 2}.",
            )


Connector = Annotated[
    Linear | Mlp | PixelShuffle | DepthBreadth | QFormer | Perceiver | CAbstractor,
    Field(discriminator="type"),
]
"""A connector."""


class Splice(Strict):
    """Visual tokens stand among those of the text."""

    type: Literal["splice"]
    adds_part: ClassVar[bool] = False


class CrossAttentionFusion(Strict):
    """New layers between those of the decoder look at the image; gates open from 0 (Flamingo)."""

    type: Literal["cross_attention"]
    adds_part: ClassVar[bool] = True
    every: Positive = 4
    """Layers of the decoder from one that looks to the next."""
    heads: Positive = 8
    """Attention heads of the layers that look."""


Fusion = Annotated[Splice | CrossAttentionFusion, Field(discriminator="type")]
"""How the decoder gets to see."""


def connector_findings(encoder: VisionEncoder, connector: Connector) -> Iterator[Finding]:
    """What does not fit between an encoder and a connector, seen from the block they stand in."""
    states = encoder.num_states
    if (states > 1) != (connector.type == "depth_breadth"):
        yield Finding(
            ("connector", "type"),
            f"{connector.type} joins several layers or prompts, and there is one"
            if states == 1
            else f"{connector.type} reads one set of features of {states}: others are ignored",
            "Choose several `vision_encoder.layers`, such as [-1, -2, -3], or another connector."
            if states == 1
            else "Choose one of `vision_encoder.layers` and of its prompts, or the connector "
            "depth_breadth.",
            (("vision_encoder", "layers"), ("vision_encoder", "prompts")),
        )
    if encoder.type != "pretrained" and connector.type == "perceiver":
        for finding in heads_divide_width(connector.heads, encoder.width):
            yield Finding(
                ("connector", "heads"),
                finding.message,
                finding.suggestion,
                (("vision_encoder", "width"),),
            )
    if encoder.cells is not None and connector.type == "pixel_shuffle":
        grid = isqrt(encoder.cells)
        if grid % connector.side:
            yield Finding(
                ("connector", "side"),
                f"a grid of {grid} x {grid} features has no squares of {connector.side}",
                f"Choose a divisor of {grid}.",
                (("vision_encoder", "image"), ("vision_encoder", "patch")),
            )
