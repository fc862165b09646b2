"""A language model that reads pixels through a patch embedding, with no vision encoder.

Shapes: E width, V visual tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from lit_eve.losses.alignment import Distance, alignment_loss
from lit_eve.losses.next_token import LossSum
from lit_eve.models.language_model import LanguageModel
from lit_eve.models.patch_alignment import PatchAlignment
from lit_eve.models.patch_embedding import PatchEmbedding
from lit_eve.models.teacher import TeacherFeatures
from lit_eve.models.vision_language import Output, Sight, VisionLanguageModel
from lit_eve_data.batches import ImageLayout, PackedBatch, PackedImages


class EncoderFreeVLM(VisionLanguageModel):
    """Patch embedding, splice, decoder. Parts have the names the experiment file uses.

    Args:
        language_model: the decoder.
        patch_embedding: pixels to visual tokens of the decoder's width.
        patch_alignment: hidden states to a teacher's features; training only.

    Raises:
        ValueError: if the patch embedding does not give tokens of the decoder's width.
    """

    def __init__(
        self,
        language_model: LanguageModel,
        patch_embedding: PatchEmbedding,
        patch_alignment: PatchAlignment | None = None,
    ) -> None:
        super().__init__()
        if patch_embedding.out_width != language_model.width:
            raise ValueError(
                f"the patch embedding gives {patch_embedding.out_width} channels a token and the "
                f"decoder reads {language_model.width}: make its out_width the decoder's width."
            )
        self.patch_embedding = patch_embedding
        self.language_model = language_model
        self.patch_alignment = patch_alignment

    @property
    def layout(self) -> ImageLayout:
        """The patch embedding's."""
        return self.patch_embedding.layout

    @property
    def vision(self) -> Sequence[nn.Module]:
        """The patch embedding."""
        return (self.patch_embedding,)

    def look(self, images: PackedImages) -> Sight:
        """Visual tokens of all images, (V, E)."""
        return Sight(self.patch_embedding(images))

    def vision_flops(self, rows: int, columns: int) -> int:
        """Forward arithmetic of the patch embedding as published, 2 per multiply-add."""
        return self.patch_embedding.flops(rows, columns)

    def alignment_loss(
        self,
        batch: PackedBatch,
        output: Output,
        teacher: TeacherFeatures,
        distance: Distance = "cosine",
    ) -> LossSum:
        """Distance of the hidden states at image positions to a teacher's features.

        Args:
            batch: packed rows and their images.
            output: of `forward` with `layers=model.patch_alignment.layers`.
            teacher: what the teacher sees in the same images.
            distance: see `alignment_loss`.

        Returns:
            `total` over images and their `number`.

        Raises:
            ValueError: if the model was built without a patch alignment.
        """
        if self.patch_alignment is None:
            raise ValueError(
                "this model has no patch alignment, so its hidden states cannot be compared with "
                "a teacher's. Add model.patch_alignment, or train for the next token only."
            )
        features = self.patch_alignment(output.layer_states, batch, teacher.grids)
        return alignment_loss(features, teacher.features, teacher.grids, distance)
