"""Numbers that may change with the step, and how fast each part of a model learns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    Tag,
    model_serializer,
)

from lit_eve.schema.base import Finding, NonNegativeReal, Strict, written_as
from lit_eve.schema.units import Span, StepsFromZero

Curve = Literal["cosine", "linear", "exponential", "quarter_cosine"]
"""Shapes of the way from one number to another; defined in `lit_eve_callbacks.schedules`."""


class Schedule(Strict):
    """A number that goes from one value to another, as a pure function of the step."""

    schedule: Curve
    """Shape of the way: cosine (half a wave), linear, exponential, quarter_cosine."""
    start: NonNegativeReal = written_as("from")
    """Value at the stage's first step."""
    end: NonNegativeReal = written_as("to")
    """Value at the end of `over`, kept from there on."""
    over: Span
    """How long the way takes: a share of the stage (`12%`) or steps (`150k`)."""

    def findings(self) -> Iterator[Finding]:
        """An exponential cannot reach or leave zero; no way can be of no length."""
        if self.schedule == "exponential":
            for key, value in (("from", self.start), ("to", self.end)):
                if value <= 0:
                    yield Finding(
                        (key,),
                        f"an exponential schedule multiplies, so {value:g} cannot be reached",
                        "Give numbers above 0, or choose cosine or linear.",
                    )
        if self.start == self.end:
            yield Finding(
                ("to",),
                f"a schedule from {self.start:g} to {self.end:g} changes nothing",
                f"Write the number {self.end:g} alone.",
                (("from",),),
            )
        if self.over.amount == 0:
            yield Finding(
                ("over",),
                "a schedule over no steps has no way to go",
                f"Write the number {self.end:g} alone, or a share such as 10%.",
            )


def _kind_of_number(value: object) -> str:
    return "<schedule>" if isinstance(value, dict | Schedule) else "<number>"


Number = Annotated[
    Annotated[float, Field(ge=0), Tag("<number>")] | Annotated[Schedule, Tag("<schedule>")],
    Discriminator(_kind_of_number),
]
"""A number of at least 0, or a schedule of one: the weight of a loss."""

PositiveNumber = Annotated[
    Annotated[float, Field(gt=0), Tag("<number>")] | Annotated[Schedule, Tag("<schedule>")],
    Discriminator(_kind_of_number),
]
"""A number above 0, or a schedule of one."""


def _rate_alone(value: object) -> object:
    """`part: 4e-4` and `part: {schedule: ...}` are short for `part: {lr: ...}`."""
    if isinstance(value, TrainPart):
        return value
    if isinstance(value, dict) and not value.keys() & {"schedule", "from", "to", "over"}:
        return value
    return {"lr": value}


class TrainPart(Strict):
    """How one part of the model learns during a stage."""

    short_for = "lr"

    lr: PositiveNumber
    """Peak learning rate, shaped by the optimizer's schedule; or a schedule of its own."""
    thaw: StepsFromZero = 0
    """Optimizer step at which the part starts to learn: staged unfreezing."""
    warmup: Span | None = None
    """Warm-up of this part, counted from its thaw; the optimizer's own when left out."""

    @model_serializer(mode="wrap")
    def _written(self, handler: SerializerFunctionWrapHandler) -> Any:
        """Short where only the rate is set."""
        plain = {key: value for key, value in handler(self).items() if value is not None}
        return plain["lr"] if self.thaw == 0 and self.warmup is None else plain


Rates = Annotated[
    TrainPart,
    BeforeValidator(_rate_alone, json_schema_input_type=float | Schedule | TrainPart),
]
"""A part's learning rate: a number, a schedule, or a block with `lr`, `thaw` and `warmup`."""
