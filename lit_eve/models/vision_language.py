"""What every vision-language model is: something that looks, and a decoder that reads and writes.

Shapes: R rows, T slots a row, E width, V visual tokens, I images, Q features an image.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from torch import Tensor, nn

from lit_eve.losses.next_token import LossSum, next_token_loss
from lit_eve.models.language_model import LanguageModel
from lit_eve.models.splice import splice
from lit_eve_data.batches import ImageLayout, PackedBatch, PackedImages


@dataclass(frozen=True)
class Output:
    """What the decoder made of a batch."""

    hidden: Tensor
    """(R, T, E) final hidden states, normalised: the head's input."""
    layer_states: dict[int, Tensor]
    """(R, T, E) each: the hidden states that were asked for, by number."""


@dataclass(frozen=True)
class Sight:
    """What a model sees in the images of a batch."""

    tokens: Tensor
    """(V, E): visual tokens, for the slots that the rows keep."""
    features: Tensor | None = None
    """(I, Q, D): what the decoder's layers look at besides, if they do."""


class VisionLanguageModel(nn.Module, ABC):
    """Images and text in, text out. Parts have the names the experiment file uses."""

    language_model: LanguageModel
    """The decoder."""

    @property
    @abstractmethod
    def layout(self) -> ImageLayout:
        """How an image becomes visual tokens."""

    @property
    @abstractmethod
    def vision(self) -> Sequence[nn.Module]:
        """The parts that an image goes through before the decoder."""

    @property
    def looking(self) -> Sequence[nn.Module]:
        """The parts that let the decoder's layers look at the images; none in most models."""
        return ()

    @abstractmethod
    def look(self, images: PackedImages) -> Sight:
        """What is seen in the images of a batch."""

    @abstractmethod
    def vision_flops(self, rows: int, columns: int) -> int:
        """Forward arithmetic of what turns an image of that many windows into visual tokens.

        2 per multiply-add.
        """

    def looking_flops(self, tokens: int, images: int) -> int:
        """Forward arithmetic of `looking` in a sample, 2 per multiply-add.

        Args:
            tokens: of the sample, visual ones included.
            images: of the sample.
        """
        return 0

    def attending(
        self, sight: Sight, slots: Tensor, position_ids: Tensor
    ) -> AbstractContextManager[None]:
        """Inside, the decoder's layers may look at the images; nothing to do for most models.

        Args:
            sight: of `look`.
            slots: `row * T + slot` of every visual token, (V,) int64.
            position_ids: (R, T) int64, 0 where a sample starts.
        """
        return nullcontext()

    def embed(self, batch: PackedBatch) -> Tensor:
        """The decoder's input, (R, T, E): text embedded, visual tokens in their slots."""
        return self._embedded(batch, self.look(batch.images))

    def _embedded(self, batch: PackedBatch, sight: Sight) -> Tensor:
        text = self.language_model.embed(batch.token_ids)  # (R, T, E)
        return splice(text, sight.tokens, batch.image_slots)

    def forward(self, batch: PackedBatch, layers: Sequence[int] = ()) -> Output:
        """Run a packed batch.

        Args:
            batch: packed rows and their images.
            layers: numbers of the hidden states to keep, see `LanguageModel.hidden_states`.
        """
        sight = self.look(batch.images)
        with self.attending(sight, batch.image_slots, batch.position_ids):
            hidden, states = self.language_model.hidden_states(
                self._embedded(batch, sight), batch.position_ids, layers, batch.image_slots
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
