"""What a question of a benchmark is, and reading files that may not be what they should be."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from lit_eve_data.disk.records import StoredImage, Turn

Picture = Path | bytes | StoredImage
"""A file, the bytes of one, or what a record holds."""
T = TypeVar("T")


@dataclass(frozen=True)
class BenchmarkQuestion:
    """A question and everything its answer may be judged by."""

    id: str
    text: str
    """May hold `<image>` where pictures belong; else they stand in front."""
    pictures: tuple[Picture, ...] = ()
    answers: tuple[str, ...] = ()
    """Right ones; for VQA what ten people said."""
    choices: tuple[str, ...] = ()
    right: int = -1
    """The right choice."""
    context: str = ""
    """What has to be read before the question."""
    category: str = ""
    group: str = ""
    """Questions of a group stand or fall together: those about one picture, rotations of one."""
    history: tuple[Turn, ...] = ()
    """Turns before the question."""
    facts: Mapping[str, Any] = field(default_factory=dict)


def read_json(file: Path) -> Any:
    """A JSON file.

    Raises:
        ValueError: if it is missing or no JSON.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(_missing(file, error)) from error
    except ValueError as error:
        raise ValueError(f"{file} is no JSON ({error}). Download it again.") from error


def read_lines(file: Path) -> Iterator[tuple[str, Any]]:
    """Place and object of every line of a file of JSON lines.

    Raises:
        ValueError: if it is missing, or a line is no JSON.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ValueError(_missing(file, error)) from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                yield f"{file}:{number}", json.loads(line)
            except ValueError as error:
                raise ValueError(f"{file}:{number}: no JSON ({error}).") from error


def read_table(file: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Place and columns of every row of a table with tabs between columns.

    Raises:
        ValueError: if it is missing.
    """
    csv.field_size_limit(2**31 - 1)  # pictures stand in a column
    try:
        with file.open(encoding="utf-8", newline="") as stream:
            rows = csv.DictReader(stream, delimiter="\t")
            for number, row in enumerate(rows, 1):
                yield f"{file}, row {number}", row
    except OSError as error:
        raise ValueError(_missing(file, error)) from error


def need(item: Any, key: str, kind: type[T] | tuple[type[T], ...], place: str) -> T:
    """A value of an object of a file.

    Raises:
        ValueError: if it is not there, or of another kind.
    """
    if not isinstance(item, Mapping) or key not in item:
        there = f" It has {', '.join(map(str, item))}." if isinstance(item, Mapping) else ""
        raise ValueError(
            f"{place}: there is no {key!r}, so this is not the format it is read as.{there} "
            "Check the type and the file of the task."
        )
    value = item[key]
    if not isinstance(value, kind):
        raise ValueError(f"{place}: {key!r} is a {type(value).__name__}: {str(value)[:60]!r}.")
    return value


def is_missing(value: str | None) -> bool:
    """Whether a cell of a table is empty, in the ways tables are written."""
    return value is None or value.strip().lower() in ("", "nan", "none")


def check_pictures(questions: Sequence[BenchmarkQuestion]) -> None:
    """Raise ValueError unless every picture file is there: before hours of answering."""
    files = {p for question in questions for p in question.pictures if isinstance(p, Path)}
    absent = sorted(file for file in files if not file.is_file())
    if absent:
        raise ValueError(
            f"{len(absent)} of {len(files)} picture files are missing, the first {absent[0]}: "
            "scores would be those of other questions. Check the `images` folder of the task."
        )


def _missing(file: Path, error: OSError) -> str:
    return (
        f"{file} cannot be read ({error.strerror}). Put the benchmark's files there, or change "
        "`path` of the task."
    )
