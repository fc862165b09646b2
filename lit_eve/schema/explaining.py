"""Validation errors in the words of the experiment file."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, get_args, get_origin

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from lit_eve.schema.base import MistakeError, Path, Strict
from lit_eve.schema.problems import Problem, advise, nearest
from lit_eve.schema.shapes import Place, blocks_of, keys_of, tags_of
from lit_eve.schema.trees import Mark, Node
from lit_eve.schema.units import shown


@dataclass(frozen=True)
class Fault:
    """One problem, and the places that can no longer be trusted because of it."""

    problem: Problem
    tainted: tuple[Path, ...]
    remove: Path | None
    """What to take away so that the rest can still be looked at."""


def explain(error: ValidationError, top: type[Strict], tree: Node) -> list[Fault]:
    """All errors of one validation of `tree` as a `top`."""
    plain = tree.plain()
    faults = [_fault(details, top, tree, plain) for details in error.errors(include_url=False)]
    misspelt = {path for fault in faults if fault.remove for path in fault.tainted[1:]}
    return [fault for fault in faults if fault.remove or fault.tainted[0] not in misspelt]


def _fault(details: ErrorDetails, top: type[Strict], tree: Node, plain: Any) -> Fault:
    kind, location = details["type"], details["loc"]
    if kind == "extra_forbidden":
        return _unknown_key(Place(top, plain, location[:-1]), str(location[-1]), tree)
    if kind == "missing" and isinstance(location[-1], int):
        location = location[:-1]  # it is the list that is too short
    elif kind == "missing":
        return _missing_key(Place(top, plain, location), str(location[-1]), tree)
    place = Place(top, plain, location)
    if location == ("model", "type"):
        message, suggestion = _describe_tag(Place(top.__base__ or top, plain, ("model",)))
    else:
        message, suggestion = _describe(place, details)
    node = tree.at(place.path) or tree
    if kind == "union_tag_invalid":
        node = node.block.get("type", node)
    if location and location[-1] == "[key]":
        return Fault(node.key.problem(message, suggestion), (place.path,), place.path)
    owner = Place(top, plain, location[:-1]).block
    told = owner is not None and owner.told_by == location[-1]  # without it another block would do
    remove = place.path[:-1] if told else place.path
    return Fault(node.mark.problem(message, suggestion), (remove,), remove)


def _unknown_key(place: Place, key: str, tree: Node) -> Fault:
    path = (*place.path, key)
    node = tree.at(path) or tree
    known = list(keys_of(place.block)) if place.block else []
    if not place.path:
        known += ["extends", "defaults"]
    near = nearest(key, known)
    tainted = (path,) if near is None else (path, (*place.path, near))
    problem = node.key.problem("unknown key", advise(key, known, "keys"))
    return Fault(problem, tainted, path)


def _missing_key(place: Place, key: str, tree: Node) -> Fault:
    node = tree.at(place.path) or tree
    mark = node.key if place.path else Mark(node.mark.file, 1, 1, ())
    needed = Mark(mark.file, mark.line, mark.column, (*mark.path, key))
    message, suggestion = _NEEDED.get(key, ("this key is missing", "Add it."))
    if key == "type":
        suggestion = f"Add `type: {get_args(place.annotation)[0]}`."
    path = (*place.path, key)
    return Fault(needed.problem(message, suggestion), (path,), None)


_NEEDED = {
    "for": ("the length of the stage is missing", "Add `for: 16k samples`, or steps or epochs."),
    "batch": ("the batch size is missing", "Add `batch: 128`, here or in `defaults:`."),
    "train": ("nothing would learn", "Add `train: {part: learning rate}`."),
    "data": ("there is nothing to learn from", "Add `data: {dataset: weight}`."),
    "task": ("the task is missing", "Add `task: language`, or another task."),
}


def _tags(annotation: Any) -> list[str]:
    return [tag for block in blocks_of(annotation) for tag in tags_of(block)]


def _describe(place: Place, details: ErrorDetails) -> tuple[str, str]:
    kind, context = details["type"], details.get("ctx", {})
    if kind in ("union_tag_invalid", "union_tag_not_found", "model_attributes_type"):
        return _describe_tag(place)
    if kind == "literal_error":
        known = re.findall(r"'([^']*)'", context["expected"])
        suggestion = advise(str(place.value), known, "choices")
        return f"expected one of {', '.join(known)}, found {shown(place.value)}", suggestion
    if kind == "value_error" and isinstance(context.get("error"), MistakeError):
        return context["error"].message, context["error"].suggestion
    if kind in ("too_short", "too_long", "missing", "string_too_short"):
        return _describe_length(place, context)
    if kind == "string_pattern_mismatch":
        return (
            f"{details['input']!r} is no name",
            "Use letters, digits, _ and -, beginning with a letter or a digit.",
        )
    expected = _EXPECTED[kind](context) if kind in _EXPECTED else "something else"
    suggestion = _ADVICE.get(kind, "")
    if isinstance(place.value, str) and place.value in ("yes", "no", "on", "off"):
        suggestion = "YAML's switches are true and false."
    return f"expected {expected}, found {shown(place.value)}", suggestion


def _describe_tag(place: Place) -> tuple[str, str]:
    known = _tags(place.annotation)
    if not isinstance(place.value, dict):
        return f"expected a block, found {shown(place.value)}", f"Write {{type: {known[0]}, ...}}."
    if "type" not in place.value:
        return "`type` is missing", f"Add `type:`, one of {', '.join(known)}."
    tag = place.value["type"]
    near = nearest(str(tag), known)
    hint = f"Did you mean {near!r}? " if near else ""
    return f"there is no type {tag!r}", f"{hint}Types here: {', '.join(known)}."


def _describe_length(place: Place, context: Mapping[str, Any]) -> tuple[str, str]:
    value = place.value
    if isinstance(value, str):
        return "the text is empty", "Write something, or leave the key out."
    if isinstance(value, dict) or not value:
        return "there is nothing in it", "Add at least one entry."
    wanted = context.get("max_length") or len(get_args(_bare(place.annotation)))
    return f"expected {wanted} values, found {len(value)}", "Write one after another: [a, b]."


def _bare(annotation: Any) -> Any:
    return _bare(get_args(annotation)[0]) if get_origin(annotation) is Annotated else annotation


_EXPECTED: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "int_type": lambda c: "a whole number",
    "int_from_float": lambda c: "a whole number",
    "float_type": lambda c: "a number",
    "finite_number": lambda c: "a finite number",
    "bool_type": lambda c: "true or false",
    "string_type": lambda c: "text",
    "greater_than": lambda c: f"a number above {c['gt']:g}",
    "greater_than_equal": lambda c: f"a number of at least {c['ge']:g}",
    "less_than": lambda c: f"a number below {c['lt']:g}",
    "less_than_equal": lambda c: f"a number of at most {c['le']:g}",
    "multiple_of": lambda c: f"a multiple of {c['multiple_of']:g}",
    "model_type": lambda c: "a block of keys",
    "model_attributes_type": lambda c: "a block of keys",
    "dict_type": lambda c: "a block of keys",
    "mapping_type": lambda c: "a block of keys",
    "tuple_type": lambda c: "a list",
    "list_type": lambda c: "a list",
}

_ADVICE = {
    "int_from_float": "Write it without a fraction.",
    "string_type": "Put text that looks like a number in quotes.",
    "model_type": "Write {key: value, ...}, or indent the keys below.",
    "model_attributes_type": "Write {key: value, ...}, or indent the keys below.",
    "dict_type": "Write {key: value, ...}, or indent the keys below.",
    "mapping_type": "Write {key: value, ...}, or indent the keys below.",
    "tuple_type": "Write [a, b].",
    "list_type": "Write [a, b].",
}
