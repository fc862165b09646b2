"""What is left of an experiment when wrong values are taken out: enough to go on checking."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from pydantic import TypeAdapter, ValidationError

from lit_eve.schema.base import Path, Strict
from lit_eve.schema.experiment import Experiment
from lit_eve.schema.explaining import Fault, explain
from lit_eve.schema.shapes import blocks_of, choose, items_of, tags_of
from lit_eve.schema.trees import Node, planted

_ROUNDS = 8
"""Taking something out can leave a gap that shows only then: a map without entries."""

_FILLINGS: tuple[Any, ...] = (1, 1000, 0.5, "x", "1 steps", "s:/", True)


@dataclass(frozen=True)
class Draft:
    """An experiment in which some places are not the user's."""

    experiment: Experiment
    names: Mapping[str, tuple[str, ...]]
    """All names of `datasets` and `stages` that the user gave, right or wrong."""
    tainted: frozenset[Path] = frozenset()
    """Places that are wrong and were filled, or that a misspelt key was probably meant to set."""

    def blocks(self) -> Iterator[tuple[Path, Strict]]:
        """Every block with its path, outermost first."""
        yield from _blocks((), self.experiment)

    def trusts(self, path: Path) -> bool:
        """Whether nothing at, above or below `path` is tainted."""
        return not any(
            path[: len(wrong)] == wrong or wrong[: len(path)] == path for wrong in self.tainted
        )


def complete(experiment: Experiment) -> Draft:
    """A draft of an experiment in which every value is right by itself."""
    names = {"datasets": tuple(experiment.datasets), "stages": tuple(experiment.stages)}
    return Draft(experiment, names)


def salvage(kind: type[Experiment], tree: Node, faults: list[Fault]) -> Draft | None:
    """A draft of `tree` with what is wrong taken out and gaps filled; None if that fails."""
    plain = tree.plain()
    names = {
        key: tuple(plain[key]) if isinstance(plain.get(key), dict) else ()
        for key in ("datasets", "stages")
    }
    tainted: set[Path] = set()
    for _ in range(_ROUNDS):
        for fault in faults:
            tainted.update(fault.tainted)
            if fault.remove:
                tainted.add(_remove(plain, fault.remove))
        _fill(kind, plain)
        try:
            experiment = kind.model_validate(plain, by_name=False, by_alias=True)
        except ValidationError as error:
            faults = explain(error, kind, planted(plain, tree))
        else:
            return Draft(experiment, names, frozenset(tainted))
    return None


def _blocks(path: Path, value: Any) -> Iterator[tuple[Path, Strict]]:
    if isinstance(value, Strict):
        yield path, value
        for name, field in type(value).model_fields.items():
            key = str(field.validation_alias or name)
            yield from _blocks((*path, key), getattr(value, name))
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _blocks((*path, key), item)
    elif isinstance(value, tuple):
        for index, item in enumerate(value):
            yield from _blocks((*path, index), item)


def _remove(plain: Any, path: Path) -> Path:
    """Take out what is at `path`, with the whole list it may stand in; gives what was taken."""
    for depth, key in enumerate(path):
        last = depth == len(path) - 1
        if not isinstance(plain, dict) or key not in plain:
            break
        if last or isinstance(plain[key], list):
            del plain[key]
            return path[: depth + 1]
        plain = plain[key]
    return path


def _fill(block: type[Strict], plain: dict[str, Any]) -> None:
    """Give every required key of a block, and of the blocks in it, some value."""
    for name, field in block.model_fields.items():
        key = str(field.validation_alias or name)
        if key in plain:
            _fill_value(field.annotation, plain[key])
        elif field.is_required():
            plain[key] = _filling(field.rebuild_annotation())


def _fill_value(annotation: Any, value: Any) -> None:
    if not isinstance(value, dict):
        return
    item = items_of(annotation)
    block = choose(annotation, value)
    if item is not None:
        for entry in value.values():
            _fill_value(item, entry)
    elif block is not None:
        _fill(block, value)


def _filling(annotation: Any) -> Any:
    """Some value that is right for `annotation`."""
    blocks = list(blocks_of(annotation))
    if blocks:
        filled: dict[str, Any] = {}
        if tags_of(blocks[0]):
            filled["type"] = tags_of(blocks[0])[0]
        _fill(blocks[0], filled)
        return filled
    item = items_of(annotation)
    if item is not None:
        return {"x": _filling(item)}
    choices = get_args(annotation) if get_origin(annotation) is Literal else ()
    return next(value for value in (*choices, *_FILLINGS) if _fits(annotation, value))


def _fits(annotation: Any, value: Any) -> bool:
    try:
        TypeAdapter(annotation).validate_python(value)
    except ValidationError:
        return False
    return True
