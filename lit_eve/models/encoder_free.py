"""A language model that reads pixels through a patch embedding, with no vision encoder.

Shapes: R rows, T slots a row, E width, V visual tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from lit_eve.losses.alignment import Distance, alignment_loss
from lit_eve.losses.next_token import LossSum, next_token_loss
from lit_eve.models.language_model import LanguageModel
from lit_eve.models.patch_alignment import PatchAlignment
from lit_eve.models.patch_embedding import PatchEmbedding
from lit_eve.models.splice import splice
from lit_eve.models.teacher import TeacherFeatures
from lit_eve_data.batches import PackedBatch


@dataclass(frozen=True)
class Output:
    """What the decoder made of a batch."""

    hidden: Tensor
    """(R, T, E) final hidden states, normalised: the head's input."""
    layer_states: dict[int, Tensor]
    """(R, T, E) each: the hidden states that were asked for, by number."""


class EncoderFreeVLM(nn.Module):
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

    def embed(self, batch: PackedBatch) -> Tensor:
        """The decoder's input, (R, T, E): text embedded, visual tokens in their slots."""
        text = self.language_model.embed(batch.token_ids)  # (R, T, E)
        visual = self.patch_embedding(batch.images)  # (V, E)
        return splice(text, visual, batch.image_slots)

    def forward(self, batch: PackedBatch, layers: Sequence[int] = ()) -> Output:
        """Run a packed batch.

        Args:
            batch: packed rows and their images.
            layers: numbers of the hidden states to keep, see `LanguageModel.hidden_states`.
        """
        hidden, states = self.language_model.hidden_states(
            self.embed(batch), batch.position_ids, layers, batch.image_slots
        )
        return Output(hidden, states)

    def next_token_loss(self, batch: PackedBatch, output: Output | None = None) -> LossSum:
        """Cross-entropy of the supervised tokens of `batch`, in nats.

        Args:
            batch: packed rows and their images.
            output: what `forward` made of the batch, if that has run already.

        Returns:
            `total` and `number`.
        """
        output = output or self(batch)
        model = self.language_model
        return next_token_loss(
            output.hidden, model.head_weight, batch.labels, batch.position_ids, model.head_bias
        )

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
