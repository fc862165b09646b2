"""The alignment stage: the next token, and a frozen teacher's features at image positions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from lit_eve.losses.alignment import Distance
from lit_eve.models.encoder_free import EncoderFreeVLM
from lit_eve.models.teacher import Teacher, TeacherFeatures
from lit_eve.tasks.language import LanguageTask
from lit_eve.tasks.optimizers import AdamWOptions, Rate, one
from lit_eve_data.batches import PackedBatch


@dataclass(frozen=True)
class Aligning:
    """What the alignment loss is made of.

    Args:
        teacher: sees the images of every batch; no module, so never trained, saved or sharded.
            None: batches bring its features, computed when their dataset was prepared.
        weight: of the loss, as a function of the optimizer step.
        distance: cosine (1 - cos) or mse.
    """

    teacher: Teacher | None
    weight: Rate
    distance: Distance


class AlignmentTask(LanguageTask):
    """Next token plus patch alignment; which parts learn is the stage's business.

    Both losses are averaged over the whole optimizer step, however its rows fall to ranks and
    micro-batches: one over its supervised tokens, the other over its images.

    Source:
        Diao et al. 2024, arXiv:2406.11832, section 3.2: the loss of all three stages; stage 1
        freezes the language model.
    """

    model: EncoderFreeVLM

    def __init__(
        self,
        model: EncoderFreeVLM,
        rates: Mapping[str, Rate],
        adamw: AdamWOptions,
        aligning: Aligning,
        language: Rate = one,
    ) -> None:
        super().__init__(model, rates, adamw, language)
        self.aligning = aligning

    def training_step(self, batch: PackedBatch, batch_idx: int) -> dict[str, Tensor]:
        """Both losses of one micro-batch."""
        alignment = self.model.patch_alignment
        assert alignment is not None  # the experiment file was checked
        output = self.model(batch, layers=alignment.layers)
        said = self.model.next_token_loss(batch, output)
        seen = self.model.alignment_loss(
            batch, output, self._features(batch, alignment.output), self.aligning.distance
        )
        language = self.language(self.global_step) * said.total / batch.labels_share
        aligned = self.aligning.weight(self.global_step) * seen.total / batch.images_share
        return {
            "loss": language + aligned,
            "train/loss": said.total.detach() / said.number.clamp(min=1),
            "train/alignment": seen.mean().detach(),
        }

    def _features(self, batch: PackedBatch, like: nn.Linear) -> TeacherFeatures:
        """What the teacher sees in a batch, now or when its dataset was prepared."""
        if self.aligning.teacher is not None:
            return self.aligning.teacher(batch.images)
        assert batch.seen is not None  # the stage's loader was made with them
        features = batch.seen.features.to(like.weight.dtype)
        if not batch.seen.grids:  # a width that no image could tell
            features = features.new_zeros(0, like.out_features)
        return TeacherFeatures(features, batch.seen.grids)
