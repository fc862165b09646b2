"""What a discriminator and the generator that wants to fool it minimise."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

SMALLEST = 1e-4
"""Added to the generator's gradient; 1e-6 in VQGAN's paper, 1e-4 in its code."""

LARGEST = 1e4
"""Most the adaptive weight can be."""


def hinge(real: Tensor, fake: Tensor) -> Tensor:
    """The discriminator's loss: real scores above 1, fake ones below -1.

    Args:
        real: scores of images, any shape.
        fake: scores of reconstructions.

    Returns:
        Scalar, 1 for scores of 0.

    Source:
        Lim & Ye 2017, arXiv:1705.02894; half the sum, as VQGAN's code has it.
    """
    return (F.relu(1 - real).mean() + F.relu(1 + fake).mean()) / 2


def fooling(fake: Tensor) -> Tensor:
    """The generator's loss: minus the mean score of its reconstructions."""
    return -fake.mean()


def adaptive_weight(reconstruction: Tensor, adversarial: Tensor) -> Tensor:
    """How much the adversarial loss may count: as much as the reconstruction loss pulls.

    Args:
        reconstruction: length of its gradient at the decoder's last weight, scalar.
        adversarial: length of the generator's gradient there, scalar.

    Returns:
        Their quotient, without gradient, at most `LARGEST`.

    Source:
        Esser et al. 2021, arXiv:2012.09841, eq. 7.
    """
    return (reconstruction / (adversarial + SMALLEST)).clamp(max=LARGEST).detach()
