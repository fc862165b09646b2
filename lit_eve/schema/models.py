"""What can be trained."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from lit_eve.schema.alignments import PatchAlignment, Teacher
from lit_eve.schema.base import Strict
from lit_eve.schema.foundations import Contrastive, TextModel
from lit_eve.schema.images import Images
from lit_eve.schema.language_models import LanguageModel, Text
from lit_eve.schema.patch_embeddings import PatchEmbedding
from lit_eve.schema.tokenizers import ImageTokenizer


class EncoderFree(Strict):
    """A language model that sees without a vision encoder (EVE, Fuyu)."""

    parts: ClassVar[tuple[str, ...]] = ("patch_embedding", "language_model", "patch_alignment")

    type: Literal["encoder_free"]
    language_model: LanguageModel
    """The decoder: llama (random weights) or pretrained."""
    text: Text | None = None
    """The text tokenizer: trained or bytes; the pretrained decoder's own when left out."""
    patch_embedding: PatchEmbedding
    """From pixels to visual tokens: eve, eve_v2 or linear."""
    images: Images = Images()
    """Sizes and scale of the pictures."""
    patch_alignment: PatchAlignment | None = None
    """What compares visual tokens with the teacher; used by `task: alignment` only."""
    teacher: Teacher | None = None
    """The frozen vision encoder to imitate: clip, siglip, dinov2, vit or random."""

    @property
    def cell(self) -> int:
        """Side in pixels of the square that becomes one visual token."""
        return self.patch_embedding.cell


Model = Annotated[
    EncoderFree | ImageTokenizer | TextModel | Contrastive, Field(discriminator="type")
]
"""A model."""
