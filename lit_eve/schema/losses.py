"""What a vision-language model is trained for."""

from __future__ import annotations

from typing import Literal

from lit_eve.schema.base import Strict
from lit_eve.schema.schedules import Number


class AlignmentLoss(Strict):
    """Distance between the student's and the teacher's features."""

    weight: Number = 1.0
    """Weight of this loss."""
    distance: Literal["cosine", "mse"] = "cosine"
    """cosine: 1 - cos, as EVE's code has it; mse: of normalised features, 2/width of that."""


class Loss(Strict):
    """Weights of the losses; a stage's task says which of them it uses."""

    language: Number = 1.0
    """Weight of the next-token loss."""
    alignment: AlignmentLoss | None = None
    """The loss that `task: alignment` adds."""
