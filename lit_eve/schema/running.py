"""Around the training: evaluation, checkpoints, machine, tracking."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from lit_eve.schema.addresses import Address
from lit_eve.schema.base import MistakeError, Positive, Strict
from lit_eve.schema.units import Count, PositiveCount, Steps, shown


class Evaluation(Strict):
    """How often, and on how much, learning is looked at."""

    every: Steps = 200
    """Steps between two validations."""
    answers: Count = 24
    """Held-out questions answered by generation at every validation, shown as a table."""
    questions: PositiveCount = 500
    """Held-out questions of each kind answered at the end of a stage."""


class TokenizerEvaluation(Strict):
    """How often, and on how much, an image tokenizer is looked at."""

    every: Steps = 200
    """Steps between two validations."""
    images: PositiveCount = 16
    """Held-out pictures shown beside their reconstructions."""


class Checkpoint(Strict):
    """How often a training is saved."""

    every: Steps = 200
    """Steps between two checkpoints."""
    keep: Positive = 2
    """Checkpoints kept of each stage, newest first."""


def _auto_or_at_least(least: int) -> Callable[[object], object]:
    def check(value: object) -> object:
        if value == "auto":
            return value
        if isinstance(value, int) and not isinstance(value, bool) and value >= least:
            return value
        raise MistakeError(
            f"expected auto, or a whole number of at least {least}, found {shown(value)}"
        )

    return check


AutoPositive = Annotated[Literal["auto"] | int, BeforeValidator(_auto_or_at_least(1))]
"""A whole number above 0, or `auto`."""
AutoNonNegative = Annotated[Literal["auto"] | int, BeforeValidator(_auto_or_at_least(0))]
"""A whole number, 0 or more, or `auto`."""


class Hardware(Strict):
    """The machine, and how the training is spread over it."""

    accelerator: Literal["auto", "cpu", "gpu", "mps"] = "auto"
    """Kind of device."""
    devices: AutoPositive = "auto"
    """Devices of one machine."""
    strategy: Literal["auto", "ddp", "fsdp", "hsdp"] = "auto"
    """auto: one device, or ddp on several; fsdp and hsdp also split the weights."""
    threads: AutoPositive = "auto"
    """CPU threads of one process."""
    workers: AutoNonNegative = "auto"
    """Processes that read data, for each device."""


class MLflowTracking(Strict):
    """Runs are recorded in MLflow."""

    type: Literal["mlflow"]
    uri: Address = Address("sqlite:///mlflow.db")
    """Database, folder or server; may refer to the environment: `${oc.env:MLFLOW_TRACKING_URI}`."""


class NoTracking(Strict):
    """Runs are on disk only."""

    type: Literal["none"]


Tracking = Annotated[MLflowTracking | NoTracking, Field(discriminator="type")]
"""Where runs are recorded."""
