"""Checking what can be checked, whatever else is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from lit_eve.schema.base import Path, Strict
from lit_eve.schema.datasets import Dataset
from lit_eve.schema.experiment import Experiment
from lit_eve.schema.explaining import Fault
from lit_eve.schema.models import Model
from lit_eve.schema.shapes import items_of
from lit_eve.schema.training import Stage


@dataclass(frozen=True)
class Draft:
    """An experiment of which parts may be wrong; what is wrong is None."""

    kind: type[Experiment]
    fields: Mapping[str, Any]
    """Every field that is right; a map of named things holds those that are right."""
    names: Mapping[str, tuple[str, ...]]
    """All names of `datasets` and `stages`, right or wrong."""
    tainted: frozenset[Path] = frozenset()
    """Places that are wrong, or were probably meant to be set by a misspelt key."""

    @property
    def model(self) -> Model | None:
        """The model, if nothing in it is wrong."""
        return self.fields.get("model")

    @property
    def datasets(self) -> Mapping[str, Dataset]:
        """The datasets in which nothing is wrong."""
        datasets: Mapping[str, Dataset] = self.fields.get("datasets", {})
        return datasets

    @property
    def stages(self) -> Mapping[str, Stage]:
        """The stages in which nothing is wrong."""
        stages: Mapping[str, Stage] = self.fields.get("stages", {})
        return stages

    def blocks(self) -> list[tuple[Path, Strict]]:
        """Every block that is right, with its path, outermost first."""
        found: list[tuple[Path, Strict]] = []
        for key, value in self.fields.items():
            _collect((key,), value, found)
        return found


def complete(experiment: Experiment) -> Draft:
    """A draft of an experiment in which every value is right by itself."""
    fields = {name: getattr(experiment, name) for name in type(experiment).model_fields}
    names = {key: tuple(fields[key]) for key in ("datasets", "stages")}
    return Draft(type(experiment), fields, names)


def salvage(kind: type[Experiment], plain: dict[str, Any], faults: list[Fault]) -> Draft:
    """A draft of what is left of `plain` without what is wrong in it."""
    names = {key: tuple(_block(plain.get(key))) for key in ("datasets", "stages")}
    for fault in faults:
        if fault.remove:
            _remove(plain, fault.remove)
    fields: dict[str, Any] = {}
    for name, field in kind.model_fields.items():
        item = items_of(field.annotation)
        if item is None:
            value = plain.get(name) if name in plain else field.get_default()
            if (right := _valid(field.annotation, value)) is not None:
                fields[name] = right
            continue
        entries = {key: _valid(item, entry) for key, entry in _block(plain.get(name)).items()}
        fields[name] = {key: entry for key, entry in entries.items() if entry is not None}
    tainted = frozenset(path for fault in faults for path in fault.tainted)
    return Draft(kind, fields, names, tainted)


def _block(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _valid(annotation: Any, value: Any) -> Any:
    try:
        return TypeAdapter(annotation).validate_python(value, by_name=False, by_alias=True)
    except ValidationError:
        return None


def _remove(plain: Any, path: Path) -> None:
    *above, last = path
    for key in above:
        plain = plain[key] if _has(plain, key) else None
    if isinstance(plain, dict):
        plain.pop(last, None)
    elif isinstance(plain, list) and _has(plain, last):
        plain[int(last)] = None


def _has(plain: Any, key: Any) -> bool:
    if isinstance(plain, dict):
        return key in plain
    return isinstance(plain, list) and isinstance(key, int) and key < len(plain)


def _collect(path: Path, value: Any, found: list[tuple[Path, Strict]]) -> None:
    if isinstance(value, Strict):
        found.append((path, value))
        for name, field in type(value).model_fields.items():
            key = str(field.validation_alias or name)
            _collect((*path, key), getattr(value, name), found)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            _collect((*path, key), item, found)
    elif isinstance(value, tuple | list):
        for index, item in enumerate(value):
            _collect((*path, index), item, found)
