"""Parts of a model by name: what learns at which rate, and from when.

A part is the start of a parameter's name, up to a dot: `language_model`, `patch_embedding.project`.
A `*` in it stands for any run of names between: `language_model.*.vision` is every module that is
called `vision` anywhere inside the language model.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches
from functools import cache


def holds(part: str, name: str) -> bool:
    """Whether the parameter `name` belongs to `part`."""
    if "*" in part:
        return _pattern(part).match(name) is not None
    return name == part or name.startswith(part + ".")


def most_specific(name: str, parts: Iterable[str]) -> str | None:
    """The longest of the parts that hold the parameter `name`; None if none does."""
    return max((part for part in parts if holds(part, name)), key=len, default=None)


def missing_part(names: Iterable[str], parts: Iterable[str]) -> tuple[str, list[str]] | None:
    """The first part that holds none of the parameters `names`, and names of parts near to it."""
    names = list(names)
    tree = sorted(
        {".".join(name.split(".")[:n]) for name in names for n in range(1, name.count(".") + 2)}
    )
    for part in parts:
        if not any(holds(part, name) for name in names):
            return part, get_close_matches(part, tree, n=3, cutoff=0.4) or tree[:5]
    return None


@cache
def _pattern(part: str) -> re.Pattern[str]:
    """`*` takes one name or more, dots between them."""
    return re.compile(".+".join(map(re.escape, part.split("*"))) + r"(\.|$)")
