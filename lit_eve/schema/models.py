"""What can be trained."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from lit_eve.schema.alignments import PatchAlignment, Teacher
from lit_eve.schema.base import Finding, Strict
from lit_eve.schema.encoders import Connector, Fusion, Splice, connector_findings
from lit_eve.schema.foundations import Contrastive, TextModel
from lit_eve.schema.images import Images
from lit_eve.schema.language_models import LanguageModel, Text, heads_divide_width
from lit_eve.schema.patch_embeddings import PatchEmbedding, num_tokens
from lit_eve.schema.tokenizers import ImageTokenizer
from lit_eve.schema.vision_encoders import VisionEncoder


class EncoderFree(Strict):
    """A language model that sees without a vision encoder (EVE, Fuyu)."""

    parts: ClassVar[tuple[str, ...]] = ("patch_embedding", "language_model", "patch_alignment")

    type: Literal["encoder_free"]
    language_model: LanguageModel
    """The decoder: llama (random weights) or pretrained."""
    text: Text | None = None
    """The text tokenizer: trained, bytes or saved; the pretrained decoder's own when left out."""
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

    def visual_tokens(self, rows: int, columns: int) -> int:
        """Visual tokens of an image of `rows` x `columns` windows."""
        return num_tokens(self.patch_embedding, rows, columns)


class EncoderModel(Strict):
    """A baseline: a language model that sees through a vision encoder and a connector."""

    parts: ClassVar[tuple[str, ...]] = (
        "vision_encoder",
        "connector",
        "language_model",
        "cross_attention",
    )

    type: Literal["encoder"]
    language_model: LanguageModel
    """The decoder: llama (random weights) or pretrained."""
    text: Text | None = None
    """The text tokenizer: trained, bytes or saved; the pretrained decoder's own when left out."""
    vision_encoder: VisionEncoder
    """From pixels to features: pretrained, vit or florence2."""
    connector: Connector
    """From features to visual tokens: linear, mlp, pixel_shuffle, depth_breadth, q_former,
    perceiver or c_abstractor."""
    fusion: Fusion = Splice(type="splice")
    """How the decoder gets to see: splice or cross_attention."""
    images: Images = Images()
    """Sizes and scale of the pictures, before the encoder resizes them to its own."""

    @property
    def cross_attention(self) -> Fusion | None:
        """The part that only one kind of fusion has."""
        return self.fusion if self.fusion.adds_part else None

    @property
    def cell(self) -> int:
        """Side in pixels of what pictures are cut into: any size will do, the encoder resizes."""
        seen = self.vision_encoder
        return 1 if seen.type == "pretrained" else seen.patch

    def visual_tokens(self, rows: int, columns: int) -> int:
        """Slots that an image of any size takes; 0 where the encoder is not known yet."""
        if self.fusion.type == "cross_attention":
            return 1
        cells = self.vision_encoder.cells
        states = self.vision_encoder.num_states
        return 0 if cells is None else self.connector.num_tokens(cells, states)

    def findings(self) -> Iterator[Finding]:
        """Encoder, connector and decoder fit each other."""
        yield from connector_findings(self.vision_encoder, self.connector)
        decoder, fusion = self.language_model, self.fusion
        if fusion.type == "cross_attention" and decoder.type == "llama":
            for finding in heads_divide_width(fusion.heads, decoder.width):
                yield Finding(
                    ("fusion", "heads"),
                    finding.message,
                    finding.suggestion,
                    (("language_model", "width"),),
                )
        if decoder.divide is not None and fusion.type == "cross_attention":
            yield Finding(
                ("language_model", "divide"),
                "with cross-attention hardly any token is visual",
                "Take it out, or write `fusion: {type: splice}`.",
                (("fusion", "type"),),
            )


VisionLanguage = Annotated[EncoderFree | EncoderModel, Field(discriminator="type")]
"""A model that reads pictures and writes text."""

Model = Annotated[
    EncoderFree | EncoderModel | ImageTokenizer | TextModel | Contrastive,
    Field(discriminator="type"),
]
"""A model."""
