"""Parquet files with images, as the Hugging Face hub stores datasets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from lit_eve_data.disk.records import BadSampleError, Turn
from lit_eve_data.sources.base import FileOptions, file_mark, picture_mark, shuffled_splits
from lit_eve_data.sources.conversations import captioned, conversation, placed, turns_of
from lit_eve_data.sources.texts import text_record
from lit_eve_data.sources.validation import ImageRules, check_image, check_text

IMAGES = ("image", "images", "jpg", "png", "img")
TALKS = ("conversations", "messages")
CAPTIONS = ("caption", "text")
Entry = tuple[str, int, int]
"""File, row group, row in it."""


@dataclass(frozen=True)
class ParquetSource:
    """Rows with an image (or several) and a conversation, a question and answer, or a caption.

    Row groups come in random order and their rows too: a row group is read as a whole, so rows of
    all files cannot be mixed freely.

    Args:
        files: the tables.
        options: sizes, shares, seed.
    """

    files: Sequence[Path]
    options: FileOptions

    def description(self) -> dict[str, Any]:
        """Which files, which versions of them, and what is done with them."""
        return {
            "type": "parquet",
            "files": [file_mark(file) for file in self.files],
            "options": self.options.as_json(),
        }

    def splits(self) -> Mapping[str, Sequence[Entry]]:
        """All rows of all files; those with the same images are held out together.

        Raises:
            ValueError: if a file is no Parquet, or has no column this program knows.
        """
        tables = [
            (str(file), number, rows)
            for file in self.files
            for number, rows in enumerate(_row_groups(file))
        ]
        random = np.random.RandomState(self.options.seed)
        entries = [
            (tables[place][0], tables[place][1], row)
            for place in random.permutation(len(tables)).tolist()
            for row in random.permutation(tables[place][2]).tolist()
        ][: self.options.limit]
        marks = _marks(entries) if self.options.held_out else None
        return shuffled_splits(entries, marks, self.options.held_out, self.options.seed, mixed=True)

    @property
    def maker(self) -> ParquetMaker:
        """Reads rows."""
        return ParquetMaker(self.options.rules)


@dataclass
class ParquetMaker:
    """Reads rows; the row group read last is remembered."""

    rules: ImageRules
    _known: tuple[str, int] | None = field(default=None, init=False, repr=False)
    _table: Any = field(default=None, init=False, repr=False)

    def __call__(self, entry: Entry) -> bytes:
        """The record of a row."""
        row = self._row(*entry)
        name = self.name(entry)
        images = [check_image(_bytes(value), self.rules) for value in _image_values(row)]
        turns = _turns(row)
        if turns is not None:
            return conversation(name, placed(turns, len(images)), images)
        caption = next((row[name] for name in CAPTIONS if row.get(name) is not None), None)
        if caption is None:
            if not images:
                raise BadSampleError("missing", "the row has neither an image nor words.")
            return conversation(name, [], images, "image/parquet")
        if not images:
            return text_record(name, check_text(caption))
        return captioned(name, check_text(caption).strip(), images, "caption/parquet")

    def name(self, entry: Entry) -> str:
        """File, row group and row."""
        return f"{Path(entry[0]).name}/{entry[1]}/{entry[2]}"

    def _row(self, file: str, group: int, row: int) -> dict[str, Any]:
        if self._known != (file, group):
            columns = [name for name in _columns(Path(file)) if name in _wanted()]
            self._table = _group(_parquet(Path(file)), group, columns)
            self._known = (file, group)
        return {name: self._table.column(name)[row].as_py() for name in self._table.column_names}


def _parquet(path: Path) -> Any:
    try:
        from pyarrow import ArrowException, parquet  # type: ignore[import-untyped]
    except ImportError as error:
        raise ValueError("reading Parquet needs the package pyarrow: install it.") from error
    try:
        return parquet.ParquetFile(path)
    except (ArrowException, OSError) as error:
        raise ValueError(f"{path} is no Parquet file: {error}") from error


def _group(table: Any, number: int, columns: list[str]) -> Any:
    """Some columns of a row group.

    Raises:
        BadSampleError: if it is damaged, as far as Parquet notices.
    """
    from pyarrow import ArrowException

    try:
        return table.read_row_group(number, columns=columns)
    except (ArrowException, OSError) as error:
        raise BadSampleError("truncated", f"its row group cannot be read: {error}") from error


def _row_groups(path: Path) -> list[int]:
    """Rows of each row group of a file that has at least one useful column."""
    names = _columns(path)
    if not _wanted() & set(names):
        raise ValueError(
            f"{path} has the columns {names}: none of {sorted(_wanted())}, which hold images, "
            "conversations or captions. Rename the columns."
        )
    about = _parquet(path).metadata
    return [about.row_group(number).num_rows for number in range(about.num_row_groups)]


def _columns(path: Path) -> list[str]:
    return list(_parquet(path).schema_arrow.names)


def _wanted() -> set[str]:
    return {*IMAGES, *TALKS, *CAPTIONS, "texts", "question", "answer"}


def _marks(entries: Sequence[Entry]) -> list[list[str]]:
    """Of the images of each row."""
    marks = []
    for (file, number), rows in groupby(entries, lambda entry: entry[:2]):
        table = _parquet(Path(file))
        columns = [name for name in table.schema_arrow.names if name in IMAGES]
        values = None
        with suppress(BadSampleError):  # its rows will be refused one by one
            values = _group(table, number, columns).to_pylist() if columns else None
        for _, _, row in rows:
            held = values[row] if values is not None else {}
            marks.append([_mark(value) for name in held for value in _listed(held[name])])
    return marks


def _mark(value: Any) -> str:
    """Of an image as it stands in a table."""
    data = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(data, bytes):  # it will be refused
        return str(value)
    return picture_mark(len(data), lambda start, count: data[start : start + count])


def _listed(value: Any) -> list[Any]:
    """What a column holds: one, several, none."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _image_values(row: Mapping[str, Any]) -> list[Any]:
    """The images of a row.

    Raises:
        BadSampleError: if several columns hold some.
    """
    found = {name: values for name in IMAGES if (values := _listed(row.get(name)))}
    if len(found) > 1:
        raise BadSampleError(
            "several_images",
            f"the columns {list(found)} all hold images: leave one, or put all into `images`.",
        )
    return next(iter(found.values()), [])


def _bytes(value: Any) -> bytes:
    """The file of an image: bytes, or Hugging Face's `{"bytes", "path"}`."""
    data = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(data, bytes):
        raise BadSampleError("missing", "the row names an image but does not hold its bytes.")
    return data


def _turns(row: Mapping[str, Any]) -> list[Turn] | None:
    """The conversation of a row, if it has one."""
    for name in TALKS:
        if row.get(name) is not None:
            return turns_of(row[name])
    if row.get("texts") is not None:  # the Cauldron's way
        talk = [(pair.get("user"), pair.get("assistant")) for pair in row["texts"]]
    elif row.get("question") is not None:
        talk = [(row["question"], row.get("answer"))]
    else:
        return None
    return [
        {"role": role, "content": check_text(words)}
        for pair in talk
        for role, words in zip(("user", "assistant"), pair, strict=True)
    ]
