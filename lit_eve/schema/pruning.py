"""How bad trials of a search are stopped early."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from lit_eve.schema.base import NonNegative, Positive, Strict
from lit_eve.schema.units import StepsFromZero


class MedianPruning(Strict):
    """Stops a trial that is worse than the median of those before it, at the same step."""

    type: Literal["median"]
    startup: NonNegative = 5
    """Trials that have to end before any is stopped."""
    after: StepsFromZero = 0
    """No trial is stopped before this step."""


class HyperbandPruning(Strict):
    """Gives trials more steps in rounds; the better third of each goes on."""

    type: Literal["hyperband"]
    after: StepsFromZero = 1
    """Steps of the shortest round."""
    keep: Annotated[int, Field(ge=2)] = 3
    """One of so many trials goes on."""


class WilcoxonPruning(Strict):
    """Stops a trial that a signed-rank test calls worse than the best, over their common steps."""

    type: Literal["wilcoxon"]
    p: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Risk of stopping a trial that is no worse."""
    reports: Positive = 3
    """Values that a trial reports before it can be stopped."""


class PatientPruning(Strict):
    """Stops a trial that no longer gets better."""

    type: Literal["patient"]
    reports: Positive = 5
    """Values without improvement that are waited for."""


def _pruning_alone(value: object) -> object:
    return {"type": value} if isinstance(value, str) else value


Pruning = Annotated[
    Annotated[
        MedianPruning | HyperbandPruning | WilcoxonPruning | PatientPruning,
        Field(discriminator="type"),
    ],
    BeforeValidator(_pruning_alone),
]
"""How bad trials are stopped early: median, hyperband, wilcoxon or patient."""
