"""What a vision-language model starts from, trained here: a decoder, and a teacher to align with.

Both leave a folder as Transformers writes it, which `language_model: {type: pretrained, from: ...}`
and `teacher: {type: clip, from: ...}` read.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from lit_eve.schema.addresses import Address
from lit_eve.schema.base import Finding, Positive, Strict
from lit_eve.schema.images import Images
from lit_eve.schema.language_models import LanguageModel, Text, heads_divide_width


class TextModel(Strict):
    """A language model alone, trained on every word of its datasets."""

    parts: ClassVar[tuple[str, ...]] = ("language_model",)

    type: Literal["language_model"]
    language_model: LanguageModel
    """The decoder: llama (random weights) or pretrained."""
    text: Text | None = None
    """The text tokenizer: trained, bytes or saved; the pretrained decoder's own when left out."""
    to: Address | None = None
    """Folder for the trained decoder and its tokenizer; the run's own when left out."""


class Half(Strict):
    """One of the two transformers of a CLIP."""

    width: Positive
    """Hidden size."""
    depth: Positive
    """Number of layers."""
    heads: Positive
    """Attention heads; the width is split among them."""

    def findings(self) -> Iterator[Finding]:
        """The width is split among the heads."""
        yield from heads_divide_width(self.heads, self.width)


class PictureHalf(Half):
    """The half that sees: what becomes a teacher."""

    patch: Positive
    """Side of a patch in pixels."""
    side: Positive
    """Side in pixels of the square a picture is brought onto, keeping its shape."""

    def findings(self) -> Iterator[Finding]:
        """Heads and patches fit."""
        yield from super().findings()
        if self.side % self.patch:
            yield Finding(
                ("side",),
                f"{self.side} px cannot be cut into patches of {self.patch} px",
                f"Choose a multiple of {self.patch}.",
                (("patch",),),
            )


class CaptionHalf(Half):
    """The half that reads."""

    longest: Positive = 64
    """Tokens of a caption; what follows is cut off."""


class Contrastive(Strict):
    """A small CLIP: pictures and captions that belong together come close."""

    parts: ClassVar[tuple[str, ...]] = ("clip",)
    cell: ClassVar[int] = 8
    """Side in pixels of the pieces that pictures travel in."""

    type: Literal["contrastive"]
    picture: PictureHalf
    """The transformer that sees."""
    caption: CaptionHalf
    """The transformer that reads."""
    width: Positive
    """Width of the space both are projected to."""
    text: Text
    """The text tokenizer: trained, bytes or saved."""
    images: Images = Images()
    """Sizes and scale of the pictures."""
    to: Address | None = None
    """Folder for the trained CLIP; the run's own when left out."""
