"""What every block of an experiment file has in common: strict, frozen, nothing converted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    SerializerFunctionWrapHandler,
    model_serializer,
)

Key = str | int
"""One step of a path into the file: a key of a block, or an index of a list."""

Path = tuple[Key, ...]
"""Where something stands in the file."""


@dataclass(frozen=True)
class Finding:
    """Something wrong between values that are each fine on their own."""

    path: Path
    """Where to point at, seen from the block that found it."""
    message: str
    suggestion: str
    involved: tuple[Path, ...] = ()
    """Other values the finding rests on: it is dropped when one of them is itself wrong."""


class Strict(BaseModel):
    """A block of keys. Unknown keys are mistakes, values are never converted, nothing changes."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        validate_by_name=True,
        validate_by_alias=True,
    )

    short_for: ClassVar[str | None] = None
    """The key that a bare value in place of this block would set."""
    told_by: ClassVar[str | None] = None
    """The key by which this block is told from others that may stand in its place."""

    def findings(self) -> Iterator[Finding]:
        """What is wrong between the values of this block."""
        yield from ()

    @model_serializer(mode="wrap")
    def _written(self, handler: SerializerFunctionWrapHandler) -> Any:
        """Keys that are left out mean None, so None is left out; a null that says more is kept."""
        plain = handler(self)
        for name, field in type(self).model_fields.items():
            if field.default is None and getattr(self, name) is None:
                del plain[str(field.serialization_alias or name)]
        return plain


class MistakeError(ValueError):
    """A value that cannot be read, with the way out."""

    def __init__(self, message: str, suggestion: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.suggestion = suggestion


def _without_nulls(value: object) -> object:
    if isinstance(value, dict):
        return {key: item for key, item in value.items() if item is not None}
    return value


def _as_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


T = TypeVar("T")

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
"""A name fit for a folder and for a key: letters, digits, `_` and `-`."""

Named = Annotated[Mapping[Name, T], BeforeValidator(_without_nulls)]
"""A map of things by name. `name: null` takes an inherited one away."""

Entries = Annotated[Mapping[str, T], BeforeValidator(_without_nulls)]
"""A map whose keys are paths or subsets. `key: null` takes an inherited entry away."""

FromList = Annotated[T, BeforeValidator(_as_tuple), PlainSerializer(list)]
"""A tuple, written as a YAML list."""

Positive = Annotated[int, Field(gt=0)]
"""A whole number above 0."""

NonNegative = Annotated[int, Field(ge=0)]
"""A whole number, 0 or more."""

PositiveReal = Annotated[float, Field(gt=0)]
"""A number above 0."""

NonNegativeReal = Annotated[float, Field(ge=0)]
"""A number, 0 or more."""

Fraction = Annotated[float, Field(ge=0, lt=1)]
"""A number from 0 up to, but not including, 1."""


def written_as(key: str, **options: Any) -> Any:
    """A field that is called `key` in the file, since the word is taken in Python."""
    return Field(validation_alias=key, serialization_alias=key, **options)
