"""YAML as a tree that remembers where every key and value was written.

YAML here is data: no tags, no code, no duplicate keys. Of plain words only `true`, `false`, `null`,
decimal numbers (`1e-4` too) are more than text: `no`, `on`, `010` and `1:30` stay what they look
like.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import yaml

from lit_eve.schema.base import Path
from lit_eve.schema.problems import ExperimentErrors, Problem, dotted

Scalar = str | int | float | bool | None
MAX_NODES = 20_000
MAX_DEPTH = 50
"""More than any experiment needs; aliases that unfold into more are an attack."""


@dataclass(frozen=True)
class Mark:
    """Where something was written."""

    file: str
    line: int | None
    column: int | None
    path: Path
    """Keys that lead to it in that file."""

    def problem(self, message: str, suggestion: str = "") -> Problem:
        """A problem here."""
        return Problem(self.file, self.line, self.column, dotted(self.path), message, suggestion)


@dataclass(frozen=True)
class Node:
    """A value with its place; `key` is the place of the key it stands under."""

    value: dict[str, Node] | list[Node] | Scalar
    mark: Mark
    key: Mark

    @property
    def block(self) -> dict[str, Node]:
        """The keys of a block; none if this is something else."""
        return self.value if isinstance(self.value, dict) else {}

    def plain(self) -> Any:
        """The value without its places."""
        match self.value:
            case dict() as block:
                return {key: node.plain() for key, node in block.items()}
            case list() as items:
                return [node.plain() for node in items]
        return self.value

    def at(self, path: Path) -> Node | None:
        """The node at `path`, if there is one."""
        node: Node | None = self
        for key in path:
            match node.value if node else None:
                case dict() as block:
                    node = block.get(str(key))
                case list() as items if isinstance(key, int) and key < len(items):
                    node = items[key]
                case _:
                    return None
        return node

    def nearest(self, path: Path) -> tuple[Path, Node]:
        """The deepest node on the way to `path`, and its path."""
        for length in range(len(path), 0, -1):
            node = self.at(path[:length])
            if node is not None:
                return path[:length], node
        return (), self

    def leaves(self, path: Path = ()) -> Iterator[tuple[Path, Node]]:
        """All values that are neither block nor list."""
        match self.value:
            case dict() as block:
                for key, node in block.items():
                    yield from node.leaves((*path, key))
            case list() as items:
                for index, node in enumerate(items):
                    yield from node.leaves((*path, index))
            case _:
                yield path, self

    def with_block(self, block: dict[str, Node]) -> Node:
        """The same place with another block."""
        return replace(self, value=block)


class _Loader(yaml.SafeLoader):
    """The parser in Python: the one in C dies of deep brackets, and says less of mistakes."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012


_TAG = "tag:yaml.org,2002:"
for _name, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)", "-+0123456789"),
    (
        "float",
        r"[-+]?(?:(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)",
        "-+.0123456789",
    ),
):
    _Loader.add_implicit_resolver(_TAG + _name, re.compile(f"^(?:{_pattern})$"), list(_first))

_CONSTRUCTORS: dict[str, Any] = {
    _TAG + "str": str,
    _TAG + "int": int,
    _TAG + "float": float,
    _TAG + "bool": lambda text: text.lower() == "true",
    _TAG + "null": lambda text: None,
}


class _Builder:
    """From PyYAML's nodes to ours; collects what is wrong on the way."""

    def __init__(self, file: str, placed: bool) -> None:
        self.file = file
        self.placed = placed
        self.problems: list[Problem] = []
        self.count = 0

    def mark(self, node: yaml.Node, path: Path) -> Mark:
        if not self.placed:
            return Mark(self.file, None, None, path)
        return Mark(self.file, node.start_mark.line + 1, node.start_mark.column + 1, path)

    def build(self, node: yaml.Node, path: Path, key: Mark | None = None) -> Node:
        mark = self.mark(node, path)
        make = partial(Node, mark=mark, key=key or mark)
        self.count += 1
        if self.count > MAX_NODES or len(path) > MAX_DEPTH:
            short = replace(mark, path=path[:3])
            raise ExperimentErrors(
                [short.problem("aliases unfold into too many values", "Write them out.")]
            )
        if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            return make(self._block(node, path))
        if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            return make([self.build(item, (*path, i)) for i, item in enumerate(node.value)])
        if isinstance(node, yaml.ScalarNode) and node.tag in _CONSTRUCTORS:
            return make(self._scalar(node, mark))
        self.problems.append(
            mark.problem(f"the tag {node.tag!r} is not allowed", "Experiment files hold data only.")
        )
        return make(None)

    def _scalar(self, node: yaml.ScalarNode, mark: Mark) -> Scalar:
        try:
            value: Scalar = _CONSTRUCTORS[node.tag](node.value)
        except ValueError:
            self.problems.append(
                mark.problem(f"{node.value!r} is no {node.tag.rpartition(':')[2]}")
            )
            return None
        return value

    def _block(self, node: yaml.MappingNode, path: Path) -> dict[str, Node]:
        block: dict[str, Node] = {}
        for key_node, value_node in node.value:
            if key_node.tag != _TAG + "str":
                word = getattr(key_node, "value", "")
                mark = self.mark(key_node, (*path, str(word)))
                self.problems.append(
                    mark.problem(f"a key has to be text, found {word!r}", "Put it in quotes.")
                )
                continue
            name = str(key_node.value)
            mark = self.mark(key_node, (*path, name))
            if name == "<<":
                self.problems.append(
                    mark.problem("merge keys are not read", "Use `extends:` or `defaults:`.")
                )
            elif name in block:
                first = block[name].key
                self.problems.append(
                    mark.problem(f"this key is here twice, first in line {first.line}", "Keep one.")
                )
            else:
                block[name] = self.build(value_node, (*path, name), mark)
        return block


def parse(text: str, file: str, path: Path = (), placed: bool = True) -> Node:
    """The tree of a YAML text.

    Args:
        text: the YAML.
        file: what to call the text in messages.
        path: where the text belongs, if it is only one value of an experiment.
        placed: whether lines and columns mean something to the reader.

    Raises:
        ExperimentErrors: with everything that is wrong with it as YAML.
    """
    builder = _Builder(file, placed)
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        at = error.problem_mark or error.context_mark
        line, column = (at.line + 1, at.column + 1) if at and placed else (None, None)
        what = " ".join(str(part) for part in (error.context, error.problem) if part)
        problem = Problem(
            file, line, column, dotted(path), f"this is not YAML: {what}", _hint(what)
        )
        raise ExperimentErrors([problem]) from None
    except (yaml.YAMLError, RecursionError) as error:
        words = "it is nested too deep" if isinstance(error, RecursionError) else str(error)
        raise ExperimentErrors(
            [Problem(file, None, None, dotted(path), f"this is not YAML: {words}")]
        ) from None
    if node is None:
        mark = Mark(file, None, None, path)
        return Node(None, mark, mark)
    tree = builder.build(node, path)
    if builder.problems:
        raise ExperimentErrors(builder.problems)
    return tree


def planted(value: Any, place: Node) -> Node:
    """A plain value as a tree, all of it written where `place` is."""
    match value:
        case dict():
            return replace(place, value={key: planted(item, place) for key, item in value.items()})
        case list():
            return replace(place, value=[planted(item, place) for item in value])
    return replace(place, value=value)


def _hint(what: str) -> str:
    if "'\\t'" in what:
        return "Indent with spaces, not with tabs."
    if "mapping values" in what:
        return "Put a text that holds ': ' in quotes, and check the indentation."
    if "expected ',' or" in what:
        return "A bracket or a comma is missing before this place."
    return "Check brackets, quotes and indentation near this place."
