"""One tree from several: `extends:`, overrides, and `defaults:` put into every stage."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path as FilePath

from lit_eve.schema.base import Path
from lit_eve.schema.problems import ExperimentErrors, Problem, advise, dotted
from lit_eve.schema.trees import Node, parse


def merge(base: Node, top: Node) -> Node:
    """`top` over `base`, key by key.

    A block whose `type` changes replaces the inherited one: the keys of one type mean nothing to
    another. Lists and single values are replaced whole.
    """
    if not isinstance(base.value, dict) or not isinstance(top.value, dict):
        return top
    before, after = base.value.get("type"), top.value.get("type")
    if before and after and before.value != after.value:
        return top
    block = dict(base.value)
    for key, node in top.value.items():
        block[key] = merge(block[key], node) if key in block else node
    return top.with_block(block)


def read(file: FilePath) -> Node:
    """The tree of an experiment file with everything it extends.

    Raises:
        ExperimentErrors: if a file is missing, no YAML, out of bounds, or extends itself.
    """
    here = FilePath.cwd().resolve()
    first = file.resolve()
    root = here if first.is_relative_to(here) else first.parent
    return _read(file, root, ())


def _read(file: FilePath, root: FilePath, chain: tuple[FilePath, ...]) -> Node:
    tree = parse(_text(file), str(file))
    if not isinstance(tree.value, dict):
        found = "empty" if tree.value is None else "no block of keys"
        raise ExperimentErrors(
            [Problem(str(file), 1, 1, "", f"the file is {found}", "Start with `name: ...`.")]
        )
    extends = tree.value.get("extends")
    own = tree.with_block({key: node for key, node in tree.value.items() if key != "extends"})
    if extends is None:
        return own
    merged: Node | None = None
    for node in extends.value if isinstance(extends.value, list) else [extends]:
        base = _read(_base(node, file, root, (*chain, file)), root, (*chain, file))
        merged = base if merged is None else merge(merged, base)
    return own if merged is None else merge(merged, own)


def _text(file: FilePath) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        message, suggestion = "no such file", _near_files(file)
    except IsADirectoryError:
        message, suggestion = "this is a folder", "Name a YAML file in it."
    except UnicodeDecodeError:
        message, suggestion = "the file is not UTF-8 text", "Save it as UTF-8."
    except OSError as error:
        message, suggestion = f"the file cannot be read: {error.strerror}", ""
    raise ExperimentErrors([Problem(str(file), None, None, "", message, suggestion)])


def _base(node: Node, file: FilePath, root: FilePath, chain: tuple[FilePath, ...]) -> FilePath:
    """The file that `extends:` names at `node`."""
    if not isinstance(node.value, str):
        problem = node.mark.problem(
            "expected the path of a file, or a list of them", "Write `extends: base.yaml`."
        )
        raise ExperimentErrors([problem])
    target = FilePath(node.value)
    found = file.parent / target
    if target.is_absolute() or not found.resolve().is_relative_to(root):
        problem = node.mark.problem(
            f"{node.value!r} leads out of {root.name or root}/",
            "Extend files below the folder you work in, by a path relative to this file.",
        )
        raise ExperimentErrors([problem])
    if not found.is_file():
        problem = node.mark.problem(f"{node.value!r}: no such file", _near_files(found))
        raise ExperimentErrors([problem])
    if any(found.samefile(other) for other in chain):
        way = " -> ".join(path.name for path in (*chain, found))
        problem = node.mark.problem(f"files extend each other: {way}", "Break the circle.")
        raise ExperimentErrors([problem])
    return found


def _near_files(file: FilePath) -> str:
    if not file.parent.is_dir():
        return f"There is no folder {file.parent} either."
    names = sorted(path.name for path in file.parent.glob("*.y*ml"))
    return advise(file.name, names, "YAML files")


def override(tree: Node, words: Iterable[str], problems: list[Problem]) -> Node:
    """The tree after `a.b=1` words, the later ones over the earlier.

    Args:
        tree: what the files say.
        words: the overrides.
        problems: takes every word that is no override or has nowhere to go.
    """
    for word in words:
        try:
            tree = _override(tree, word)
        except ExperimentErrors as errors:
            problems.extend(errors.problems)
    return tree


def _override(tree: Node, word: str) -> Node:
    file = f"override {word!r}"
    left, sign, right = word.partition("=")
    keys = tuple(quoted or plain for quoted, plain in re.findall(r'"([^"]+)"|([^".]+)', left))
    if not sign or not keys or left != left.strip():
        raise ExperimentErrors(
            [Problem(file, None, None, "", "this is no override", "Write key=value: seed=1.")]
        )
    path = _match(tree, keys)
    if path[0] == "extends":
        raise ExperimentErrors(
            [Problem(file, None, None, "extends", "a file can only extend in the file itself")]
        )
    return _put(tree, path, parse(right, file, path, placed=False), ())


def _match(tree: Node, keys: Path) -> Path:
    """`keys` with dots put back where the tree has keys with dots in them."""
    path: list[str] = []
    node: Node | None = tree
    rest = [str(key) for key in keys]
    while rest:
        block = node.block if node else {}
        length = next((n for n in range(len(rest), 0, -1) if ".".join(rest[:n]) in block), 1)
        key = ".".join(rest[:length])
        path.append(key)
        node, rest = block.get(key), rest[length:]
    return tuple(path)


def _put(tree: Node, path: Path, value: Node, above: Path) -> Node:
    if not path:
        return merge(tree, value)
    key, *rest = path
    here = (*above, key)
    if isinstance(tree.value, list):
        return _put_item(tree, str(key), tuple(rest), value, above)
    if not isinstance(tree.value, dict):
        raise ExperimentErrors(
            [
                value.mark.problem(
                    f"{dotted(above)} is no block of keys, so it has no {key!r} to set",
                    f"Give the whole block: {dotted(above)}={{{dotted((key, *rest))}: ...}}.",
                )
            ]
        )
    mark = replace(value.mark, path=here)
    child = tree.value.get(str(key), Node({}, mark, mark))
    return tree.with_block({**tree.value, str(key): _put(child, tuple(rest), value, here)})


def _put_item(tree: Node, key: str, rest: Path, value: Node, above: Path) -> Node:
    items = list(tree.value) if isinstance(tree.value, list) else []
    if not key.isdecimal() or int(key) >= len(items):
        raise ExperimentErrors(
            [
                value.mark.problem(
                    f"{dotted(above)} is a list of {len(items)}, so it has no {key!r} to set",
                    f"Count from 0 to {len(items) - 1}.",
                )
            ]
        )
    child = items[int(key)] if rest else value
    items[int(key)] = _put(child, rest, value, (*above, int(key)))
    return replace(tree, value=items)


def _trains(stage: Node) -> bool:
    """Whether a stage takes defaults: one that only changes weights (`do:`) has no use for them."""
    return isinstance(stage.value, dict) and "do" not in stage.value


def spread_defaults(tree: Node, problems: list[Problem]) -> Node:
    """`defaults:` put under every stage, each key with the place where it was written.

    Args:
        tree: what files and overrides say.
        problems: takes every override of a default that no stage takes.
    """
    defaults, stages = tree.block.get("defaults"), tree.block.get("stages")
    if defaults is None or defaults.value is None:
        return tree
    if not isinstance(defaults.value, dict):
        problems.append(
            defaults.mark.problem("expected a block of keys", "Indent what belongs to it.")
        )
        return tree
    if stages is None or not isinstance(stages.value, dict):
        return tree
    merged = {
        name: merge(defaults, stage) if _trains(stage) else stage
        for name, stage in stages.value.items()
    }
    used = {id(leaf) for node in merged.values() for _, leaf in node.leaves()}
    for path, leaf in defaults.leaves():
        if leaf.mark.line is None and id(leaf) not in used:
            problems.append(
                leaf.mark.problem(
                    "this has no effect: every stage sets it itself",
                    f"Write stages.NAME.{dotted(path)}=... for a stage: {', '.join(merged)}.",
                )
            )
    return tree.with_block({**tree.block, "stages": stages.with_block(merged)})
