"""One value of a search's space: choices, or numbers between two ends."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainSerializer

from lit_eve.schema.base import Entries, Finding, FromList, PositiveReal, Strict
from lit_eve.schema.units import shown

Scalar = str | int | float | bool
"""A value that needs no label."""

Pair = FromList[tuple[float, float]]


def _listed(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _choices_alone(value: object) -> object:
    return {"choices": value} if isinstance(value, list) else value


class Axis(Strict):
    """What one value of the experiment may be."""

    short_for = "choices"

    choices: (
        Annotated[
            tuple[Any, ...] | Mapping[str, Any],
            BeforeValidator(_listed, json_schema_input_type=list[Scalar] | dict[str, Any]),
            PlainSerializer(lambda value: list(value) if isinstance(value, tuple) else value),
        ]
        | None
    ) = None
    """Values to choose from; those that are lists or blocks under a label each."""
    range: Pair | None = None
    """Smallest and largest value, both possible."""
    log: Pair | None = None
    """Likewise, drawn evenly by order of magnitude: for learning rates."""
    step: PositiveReal | None = None
    """Distance between the values of a range."""
    when: Entries[Any] = Field(default={})
    """Only where other keys of the space have these values: `{model.quantizer: gumbel}`."""

    @property
    def labels(self) -> tuple[Scalar, ...]:
        """What is drawn in place of the choices: their labels, or the values themselves."""
        return tuple(self.choices or ())

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Smallest and largest number; None for choices."""
        return self.range or self.log

    def value(self, label: Scalar) -> Any:
        """The value that a drawn label or number stands for."""
        return self.choices[str(label)] if isinstance(self.choices, Mapping) else label

    def takes(self, value: object) -> bool:
        """Whether `value` could be drawn."""
        if self.bounds is None:
            return any(value == label and type(value) is type(label) for label in self.labels)
        low, high = self.bounds
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and low <= float(str(value)) <= high

    def findings(self) -> Iterator[Finding]:
        """What cannot be drawn from."""
        kinds = [key for key in ("choices", "range", "log") if getattr(self, key) is not None]
        if len(kinds) != 1:
            yield Finding(
                (),
                f"what may be drawn is said {'by ' + ' and '.join(kinds) if kinds else 'nowhere'}",
                "Write one of [a, b, c], {range: [a, b]} and {log: [a, b]}.",
            )
            return
        yield from self._choices_findings() if self.bounds is None else self._number_findings()

    def _choices_findings(self) -> Iterator[Finding]:
        if not self.labels:
            yield Finding((), "there is nothing to choose from", "Write [a, b, c].")
        if self.step is not None:
            yield Finding(("step",), "choices have no step", "Take it out, or write a range.")
        if isinstance(self.choices, Mapping):
            return
        for item in self.labels:
            if not isinstance(item, Scalar):
                yield Finding(
                    (),
                    f"{shown(item)} cannot be told in a table or a plot",
                    "Give every choice a label: {choices: {small: [1, 2], large: [1, 2, 4]}}.",
                )
                return
        if len(set(map(repr, self.labels))) < len(self.labels):
            yield Finding((), "a choice is here twice", "Keep one.")

    def _number_findings(self) -> Iterator[Finding]:
        assert self.bounds is not None
        key, (low, high) = "range" if self.range else "log", self.bounds
        if low >= high:
            yield Finding(
                (key,), f"nothing lies between {low:g} and {high:g}", "Write [low, high]."
            )
        if self.log and low <= 0:
            yield Finding((key,), f"{low:g} has no logarithm", "Start above 0, or write a range.")
        if self.step is None:
            return
        if self.log:
            yield Finding(("step",), "orders of magnitude have no step", "Take it out.")
        elif not math.isclose((high - low) / self.step % 1, 0, abs_tol=1e-6) and not math.isclose(
            (high - low) / self.step % 1, 1, abs_tol=1e-6
        ):
            yield Finding(
                ("step",),
                f"steps of {self.step:g} from {low:g} never arrive at {high:g}",
                "Choose an end that they meet.",
                (("range",),),
            )


SpaceAxis = Annotated[
    Axis, BeforeValidator(_choices_alone, json_schema_input_type=list[Scalar] | Axis)
]


class Bound(Strict):
    """What a metric has to be for a trial to count."""

    above: float | None = None
    """It has to be at least this."""
    below: float | None = None
    """It has to be at most this."""

    def findings(self) -> Iterator[Finding]:
        """A bound that lets everything or nothing pass."""
        if self.above is None and self.below is None:
            yield Finding((), "this requires nothing", "Write {above: 0.5} or {below: 0.5}.")
        elif self.above is not None and self.below is not None and self.above > self.below:
            yield Finding(
                (), f"nothing is above {self.above:g} and below {self.below:g}", "Swap them."
            )
