"""Amounts as people write them: `16k`, `3%`, `200 steps`, `90k samples`, `1 epoch`.

A multiplier is `k` (thousand), `M` (million) or `B` (billion); it needs a whole number as result.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from lit_eve.schema.base import MistakeError

Unit = Literal["samples", "tokens", "steps", "epochs"]

UNITS: tuple[Unit, ...] = ("samples", "tokens", "steps", "epochs")
_SINGULAR: dict[str, Unit] = {"sample": "samples", "token": "tokens", "step": "steps"}
_MULTIPLIERS = {"": 1, "k": 1_000, "M": 1_000_000, "B": 1_000_000_000}
_NUMBER = r"(?:\d+(?:\.\d+)?|\.\d+)(?:[eE][+-]?\d+)?"
_COUNT = re.compile(rf"({_NUMBER})\s*([a-zA-Z]?)")
_COUNT_PATTERN = rf"^{_NUMBER}\s*[kMB]?"


def parse_count(value: object) -> int:
    """A whole number of things, from `24000`, `24k` or `1.2M`.

    Raises:
        MistakeError: if `value` is no such number.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise MistakeError(f"expected a count, found {shown(value)}", "Write 16000, 16k or 1.2M.")
    match = _COUNT.fullmatch(str(value).strip())
    if match is None:
        raise MistakeError(f"expected a count, found {shown(value)}", "Write 16000, 16k or 1.2M.")
    number, letter = match.groups()
    if letter not in _MULTIPLIERS:
        raise MistakeError(
            f"{shown(value)} ends in {letter!r}, which is no multiplier",
            "Write k for thousand, M for million or B for billion.",
        )
    amount = float(number) * _MULTIPLIERS[letter]
    if abs(amount - round(amount)) > 1e-6:
        raise MistakeError(f"{shown(value)} is no whole number", "Count in whole things.")
    return round(amount)


def shown(value: object) -> str:
    """A value as it is quoted in messages."""
    match value:
        case None:
            return "nothing"
        case bool():
            return f"the switch {str(value).lower()}"
        case int() | float():
            return f"the number {value}"
        case str():
            return f"the text {value!r}"
        case dict():
            return f"a block with the keys {', '.join(map(str, value))}" if value else "{}"
        case list() | tuple():
            return f"a list of {len(value)}"
    return repr(value)


def parse_steps(value: object) -> int:
    """Optimizer steps, from `200`, `200 steps` or `1k steps`.

    Raises:
        MistakeError: if `value` is no count, or counts something else.
    """
    if isinstance(value, str) and " " in value.strip():
        number, unit = value.strip().rsplit(" ", 1)
        if unit not in ("step", "steps"):
            raise MistakeError(
                f"{shown(value)} counts {unit!r}, but this is counted in optimizer steps",
                f"Write {number} steps.",
            )
        return parse_count(number)
    return parse_count(value)


class Written:
    """Base of values that are one word or two in the file."""

    pattern: ClassVar[str]
    examples: ClassVar[tuple[str, ...]]

    @classmethod
    def parse(cls, value: object) -> Self:
        """The value that the text stands for.

        Raises:
            MistakeError: if it stands for none.
        """
        raise NotImplementedError

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: type[Any], handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            lambda value: value if isinstance(value, cls) else cls.parse(value),
            serialization=core_schema.plain_serializer_function_ser_schema(cls.plain),
        )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"type": "string", "pattern": cls.pattern, "examples": list(cls.examples)}

    def plain(self) -> str | int:
        """What is written into a file for this value; `parse` reads it back equal."""
        return str(self)


@dataclass(frozen=True)
class Budget(Written):
    """How long a stage lasts: `16k samples`, `2M tokens`, `500 steps`, `3 epochs`."""

    amount: int | float
    unit: Unit

    pattern: ClassVar[str] = _COUNT_PATTERN + r" (samples?|tokens?|steps?|epochs?)$"
    examples: ClassVar[tuple[str, ...]] = ("16k samples", "500 steps", "1 epoch")

    @classmethod
    def parse(cls, value: object) -> Self:
        """See the class; epochs may be fractions, everything else is whole and above 0."""
        words = value.split() if isinstance(value, str) else []
        if len(words) != 2:
            raise MistakeError(
                f"expected an amount with its unit, found {shown(value)}",
                f"Write a number and one of {', '.join(UNITS)}: 16k samples, 1 epoch.",
            )
        number, word = words
        unit = _SINGULAR.get(word, "epochs" if word == "epoch" else word)
        if unit not in UNITS:
            raise MistakeError(
                f"there is no unit {word!r} in {value!r}", f"Units: {', '.join(UNITS)}."
            )
        if unit == "epochs" and re.fullmatch(_NUMBER, number):
            epochs = float(number)
            amount: int | float = int(epochs) if epochs.is_integer() else epochs
        else:
            amount = parse_count(number)
        if amount <= 0:
            raise MistakeError(f"{value!r} is no time at all", "Give an amount above 0.")
        return cls(amount, unit)

    def __str__(self) -> str:
        return f"{self.amount} {self.unit}"


@dataclass(frozen=True)
class Span(Written):
    """A part of a stage: a share of its steps (`3%`) or a number of them (`200`, `150k steps`)."""

    amount: int | float
    """Steps, or for a share a number from 0 to 1."""
    unit: Literal["share", "steps"]

    pattern: ClassVar[str] = rf"^({_NUMBER}\s*%|{_NUMBER}\s*[kMB]?( steps?)?)$"
    examples: ClassVar[tuple[str, ...]] = ("3%", "200 steps", "150k")

    @classmethod
    def parse(cls, value: object) -> Self:
        """See the class."""
        if isinstance(value, str) and value.strip().endswith("%"):
            number = value.strip()[:-1].strip()
            if not re.fullmatch(_NUMBER, number) or float(number) > 100:
                raise MistakeError(
                    f"expected a share from 0% to 100%, found {shown(value)}", "Write 3% or 12.5%."
                )
            return cls(round(float(number) / 100, 12), "share")
        if isinstance(value, float) and not value.is_integer():
            raise MistakeError(
                f"expected steps or a share, found {shown(value)}",
                f"A share carries its sign: write {100 * value:g}%.",
            )
        try:
            return cls(parse_steps(value), "steps")
        except MistakeError as mistake:
            raise MistakeError(
                mistake.message, "Write a share of the stage (3%) or steps (200, 150k steps)."
            ) from None

    def steps(self, total: int) -> int:
        """Optimizer steps of this part of a stage of `total` steps."""
        return int(self.amount) if self.unit == "steps" else round(self.amount * total)

    def __str__(self) -> str:
        return f"{self.amount * 100:.14g}%" if self.unit == "share" else f"{self.amount} steps"

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        text = super().__get_pydantic_json_schema__(schema, handler)
        return {"anyOf": [text, {"type": "integer", "minimum": 0}]}


CountText = Annotated[int, Field(ge=0)] | Annotated[str, Field(pattern=_COUNT_PATTERN + "$")]
StepsText = (
    Annotated[int, Field(ge=0)] | Annotated[str, Field(pattern=_COUNT_PATTERN + "( steps?)?$")]
)

Count = Annotated[int, Field(ge=0), BeforeValidator(parse_count, json_schema_input_type=CountText)]
"""A number of things: `24000`, `24k`, `1.2M`."""

PositiveCount = Annotated[
    int, Field(gt=0), BeforeValidator(parse_count, json_schema_input_type=CountText)
]
"""A number of things above 0: `128`, `16k`."""

StepsFromZero = Annotated[
    int, Field(ge=0), BeforeValidator(parse_steps, json_schema_input_type=StepsText)
]
"""A number of optimizer steps, which may be none: `0`, `200`, `1k steps`."""

Steps = Annotated[int, Field(gt=0), BeforeValidator(parse_steps, json_schema_input_type=StepsText)]
"""Optimizer steps above 0: `200`, `200 steps`, `1k steps`."""
