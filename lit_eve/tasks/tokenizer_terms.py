"""What a tokenizer can be trained for besides likelihood and codes.

Shapes: B images, H/W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from lit_eve.losses.adversarial import adaptive_weight, fooling, hinge
from lit_eve.losses.perceptual import PerceptualLoss
from lit_eve.models.tokenizers.discriminator import gradient_norm
from lit_eve.models.tokenizers.image_tokenizer import ImageTokenizer, Reconstruction


@dataclass(frozen=True)
class Terms:
    """Losses to be added, and numbers to be watched."""

    losses: Mapping[str, Tensor]
    statistics: Mapping[str, Tensor] = field(default_factory=dict)


class Term(Protocol):
    """One more loss of a tokenizer."""

    def __call__(
        self,
        model: ImageTokenizer,
        reconstruction: Reconstruction,
        pixels: Tensor,
        losses: Mapping[str, Tensor],
        step: int,
    ) -> Terms:
        """The loss on a batch.

        Args:
            model: the tokenizer.
            reconstruction: of the batch.
            pixels: the batch, (B, 3, H, W) in [0, 1].
            losses: what was computed before, by name.
            step: the optimizer step.
        """


@dataclass(frozen=True)
class PerceptualTerm:
    """LPIPS between reconstructions and originals."""

    loss: PerceptualLoss
    weight: float = 1.0

    def __call__(
        self,
        model: ImageTokenizer,
        reconstruction: Reconstruction,
        pixels: Tensor,
        losses: Mapping[str, Tensor],
        step: int,
    ) -> Terms:
        """See `Term`."""
        distance = self.loss(model.pixels.to_signed(reconstruction.outputs), 2 * pixels - 1)
        return Terms({"perceptual": self.weight * distance})


@dataclass(frozen=True)
class AdversarialTerm:
    """Tokenizer against discriminator, both from one backward pass and one optimizer step.

    The generator's loss reaches the tokenizer through a discriminator whose weights count as
    constants; the discriminator's loss sees reconstructions that count as constants. So one
    optimizer serves both, and accumulation, clipping, precision, several processes and the step
    count need nothing special. VQGAN's code steps them one after the other.

    Before `starts_at` both losses are multiplied by 0 and computed all the same: every step has
    gradients for the same parameters, which data-parallel training relies on.

    Attributes:
        weight: of the generator's loss, after the adaptive weight.
        starts_at: optimizer step.

    Raises:
        ValueError: when called, if the model has no discriminator.

    Source:
        Esser et al. 2021, arXiv:2012.09841, eq. 6 and 7; weight 0.8 in its code.
    """

    weight: float = 0.8
    starts_at: int = 0

    def __call__(
        self,
        model: ImageTokenizer,
        reconstruction: Reconstruction,
        pixels: Tensor,
        losses: Mapping[str, Tensor],
        step: int,
    ) -> Terms:
        """See `Term`."""
        critic = model.discriminator
        if critic is None:
            raise ValueError(
                "an adversarial loss needs a discriminator, but this tokenizer has none: "
                "give the model one, or take the loss out."
            )
        fake, real = model.pixels.to_signed(reconstruction.outputs), 2 * pixels - 1
        fooled = fooling(critic.judge(fake))
        last = model.decoder.last_weight
        pull = losses["reconstruction"] + losses.get("perceptual", 0.0)
        scale = adaptive_weight(gradient_norm(pull, last), gradient_norm(fooled, last))
        on = float(step >= self.starts_at)
        real_scores, fake_scores = critic(real), critic(fake.detach())
        return Terms(
            {
                "generator": on * self.weight * scale * fooled,
                "discriminator": on * hinge(real_scores, fake_scores),
            },
            {
                "train/adaptive_weight": scale,
                "train/score_real": real_scores.mean(),
                "train/score_fake": fake_scores.mean(),
            },
        )
