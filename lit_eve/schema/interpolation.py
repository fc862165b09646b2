"""`${model.language_model.width}`: values that repeat others (OmegaConf's language).

References to the environment stay references (see `addresses`), and nothing else is ever called: a
file cannot run code.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lit_eve.schema.addresses import ENVIRONMENT
from lit_eve.schema.base import Path
from lit_eve.schema.problems import Problem, dotted, nearest
from lit_eve.schema.trees import Node, planted

if TYPE_CHECKING:
    from omegaconf import DictConfig

_CALL = re.compile(r"(?<!\\)\$\{\s*([A-Za-z_][\w.]*)\s*:")


def interpolate(tree: Node, problems: list[Problem]) -> Node:
    """The tree with every interpolation replaced by what it names.

    Those of `defaults:` are left: by now they stand in the stages, where `${.batch}` is at home.

    Args:
        tree: what was read.
        problems: takes every interpolation that names nothing, itself, or is malformed.
    """
    asking = [
        (path, leaf)
        for path, leaf in tree.leaves()
        if "${" in str(leaf.value) and path[0] != "defaults"
    ]
    if not asking:
        return tree
    from omegaconf import OmegaConf  # 0.15 s, and most files name nothing

    malformed = [problem for _, leaf in asking for problem in _malformed(leaf)]
    if malformed:
        problems.extend(malformed)
        return tree
    config = OmegaConf.create(_protected(tree.plain()))
    for path, leaf in asking:
        try:
            tree = _replace(tree, path, _resolved(config, path))
        except ValueError as error:
            problems.append(leaf.mark.problem(*_explain(error, leaf, tree)))
    return tree


def _malformed(leaf: Node) -> Iterator[Problem]:
    from omegaconf import OmegaConf
    from omegaconf.errors import GrammarParseError

    text = _protected(leaf.value)
    call = _CALL.search(text)
    if call is not None:
        yield leaf.mark.problem(
            f"{call.group(1)!r} cannot be called from an experiment file",
            "Only ${other.key} and ${oc.env:NAME} are read.",
        )
        return
    try:
        OmegaConf.create({"text": text})
    except GrammarParseError:
        yield leaf.mark.problem(
            f"{leaf.value!r} is no interpolation", "Write ${other.key}, or \\${ for a plain ${."
        )


def _protected(value: Any) -> Any:
    """The same with environment references escaped, so that they come out as they went in."""
    match value:
        case str():
            return ENVIRONMENT.sub(lambda match: "\\" + match.group(), value)
        case dict():
            return {key: _protected(item) for key, item in value.items()}
        case list():
            return [_protected(item) for item in value]
    return value


def _resolved(config: DictConfig, path: Path) -> Any:
    from omegaconf import OmegaConf

    value: Any = config
    for key in path:
        value = value[key]
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def _replace(tree: Node, path: Path, value: Any) -> Node:
    if not path:
        return planted(value, tree)
    key, rest = path[0], path[1:]
    if isinstance(tree.value, list):
        items = list(tree.value)
        items[int(key)] = _replace(items[int(key)], rest, value)
        return replace(tree, value=items)
    return tree.with_block({**tree.block, str(key): _replace(tree.block[str(key)], rest, value)})


def _explain(error: ValueError, leaf: Node, tree: Node) -> tuple[str, str]:
    text = str(error)
    if "Recursive" in text:
        return f"{leaf.value} leads back to itself", "Write one of the values out."
    known = [dotted(path) for path, _ in tree.leaves()]
    names = re.findall(r"\$\{\s*([^{}:]+?)\s*\}", str(leaf.value))
    name = names[0] if names else str(leaf.value)
    last = nearest(name.rpartition(".")[2], [key.rpartition(".")[2] for key in known], 0.75)
    near = next((key for key in known if key.rpartition(".")[2] == last), nearest(name, known))
    message = f"{leaf.value} names nothing in this experiment"
    return message, f"Did you mean ${{{near}}}?" if near else "Write the full path of a key."
