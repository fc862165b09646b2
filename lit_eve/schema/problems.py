"""Mistakes in an experiment file, as they are told to people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from lit_eve.schema.base import Path


@dataclass(frozen=True)
class Problem:
    """One mistake: where it is, what is wrong, what to write instead."""

    file: str
    """The file; for something given on the command line, the words given."""
    line: int | None
    column: int | None
    key: str
    """Full path of the key, as an override would write it."""
    message: str
    suggestion: str = ""

    @property
    def place(self) -> str:
        """`file:line:column`, as far as they are known."""
        numbers = (number for number in (self.line, self.column) if number is not None)
        return ":".join([self.file, *map(str, numbers)])

    def __str__(self) -> str:
        key = f"{self.key}: " if self.key else ""
        end = f". {self.suggestion}" if self.suggestion else "."
        return f"{self.place}: {key}{self.message.rstrip('.')}{end}"


class ExperimentErrors(ValueError):  # noqa: N818  # it holds several
    """Everything that is wrong with an experiment, all at once."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems: Sequence[Problem] = tuple(dict.fromkeys(problems))
        super().__init__("\n".join(map(str, self.problems)))


def dotted(path: Path) -> str:
    """A path as an override writes it: `stages.learn.data."scenes.captions"`."""
    return ".".join(f'"{key}"' if "." in str(key) else str(key) for key in path)


def nearest(word: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The known word that looks most like `word`, if any does."""
    lower = {name.lower(): name for name in known}
    found = get_close_matches(word.lower(), lower, n=1, cutoff=cutoff)
    return lower[found[0]] if found else None


def advise(word: str, known: Sequence[str], what: str) -> str:
    """`Did you mean x?` where a known word is near, else the list of `what` there is."""
    near = nearest(word, known)
    if near is not None:
        return f"Did you mean {near!r}?"
    if not known:
        return f"There are no {what} here."
    return f"{what[0].upper()}{what[1:]} here: {', '.join(known)}."
