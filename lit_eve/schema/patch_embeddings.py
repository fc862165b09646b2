"""From pixels to visual tokens without a vision encoder."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from lit_eve.schema.base import Finding, Positive, Strict
from lit_eve.schema.language_models import heads_divide_width


class EvePatchEmbedding(Strict):
    """EVE v1: patch convolution, pooled queries, a `<CLS>` that looks at the whole image."""

    has_cls: ClassVar[bool] = True
    has_row_end: ClassVar[bool] = True

    type: Literal["eve"]
    patch: Positive
    """Side of a patch in pixels."""
    pool: Positive
    """Side, in patches, of the window that becomes one visual token."""
    width: Positive
    """Width inside the patch embedding."""
    heads: Positive
    """Attention heads of the window's query and of `<CLS>`."""

    @property
    def cell(self) -> int:
        """Side in pixels of the square that becomes one visual token."""
        return self.patch * self.pool

    def findings(self) -> Iterator[Finding]:
        """The width is split among the heads."""
        yield from heads_divide_width(self.heads, self.width)


class EveV2PatchEmbedding(Strict):
    """EVE v2: two convolutions with a GELU between, a static `<CLS>`, row ends."""

    has_cls: ClassVar[bool] = True
    has_row_end: ClassVar[bool] = True

    type: Literal["eve_v2"]
    patch: Positive
    """Side of the first convolution's patch in pixels."""
    pool: Positive
    """Side, in patches, of the second convolution's window: one visual token."""
    width: Positive
    """Channels between the two convolutions."""

    @property
    def cell(self) -> int:
        """Side in pixels of the square that becomes one visual token."""
        return self.patch * self.pool


class LinearPatchEmbedding(Strict):
    """Fuyu: one linear layer from the pixels of a patch to a token, and row ends."""

    has_cls: ClassVar[bool] = False
    has_row_end: ClassVar[bool] = True

    type: Literal["linear"]
    patch: Positive
    """Side of a patch in pixels: one visual token."""

    @property
    def cell(self) -> int:
        """Side in pixels of the square that becomes one visual token."""
        return self.patch


PatchEmbedding = Annotated[
    EvePatchEmbedding | EveV2PatchEmbedding | LinearPatchEmbedding, Field(discriminator="type")
]
"""A patch embedding."""


def num_tokens(embedding: PatchEmbedding, rows: int, columns: int) -> int:
    """Visual tokens of an image of `rows` x `columns` windows."""
    return int(embedding.has_cls) + rows * (columns + int(embedding.has_row_end))
