"""LLaVA's JSON beside a folder of images: several turns, none, one or several images a sample."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lit_eve_data.disk.records import BadSampleError
from lit_eve_data.sources.base import FileOptions, file_mark, files_mark, shuffled_splits
from lit_eve_data.sources.conversations import conversation, turns_of
from lit_eve_data.sources.validation import ImageRules, check_image, check_text, read_below

Entry = tuple[int, Any]
"""The place in the file, and what stands there."""


@dataclass(frozen=True)
class LlavaSource:
    """A list of `{"id", "image", "conversations"}`, as JSON or one object a line.

    Args:
        file: the list.
        images: folder the names in `image` are relative to.
        options: sizes, shares, seed.
    """

    file: Path
    images: Path
    options: FileOptions

    def description(self) -> dict[str, Any]:
        """Where it is, which version of it and of its images, and what is done with it."""
        return {
            "type": "llava",
            "file": file_mark(self.file),
            "images": str(self.images.resolve()),
            "pictures": self._pictures,
            "options": self.options.as_json(),
        }

    def splits(self) -> Mapping[str, Sequence[Entry]]:
        """All entries; those about the same images are held out together.

        Raises:
            ValueError: if the file is no such list.
        """
        entries = self._entries
        marks = [[str(name) for name in _names(entry)] for _, entry in entries]
        return shuffled_splits(entries, marks, self.options.held_out, self.options.seed)

    @cached_property
    def _entries(self) -> list[Entry]:
        return list(enumerate(read_list(self.file)))[: self.options.limit]

    @cached_property
    def _pictures(self) -> str:
        """Changes with the files of the pictures."""
        names = (name for _, entry in self._entries for name in _names(entry))
        return files_mark(self.images, names)

    @property
    def maker(self) -> LlavaMaker:
        """Reads images and checks conversations."""
        return LlavaMaker(self.images, self.options.rules)


@dataclass(frozen=True)
class LlavaMaker:
    """Reads images and checks conversations."""

    images: Path
    rules: ImageRules

    def __call__(self, entry: Entry) -> bytes:
        """The record of an entry."""
        place, content = entry
        if not isinstance(content, dict):
            raise BadSampleError("turns", "the entry is no object.")
        names = _names(content)
        turns = turns_of(content.get("conversations"))
        images = [check_image(read_below(self.images, name), self.rules) for name in names]
        return conversation(check_text(str(content.get("id", place))), turns, images)

    def name(self, entry: Entry) -> str:
        """Place in the file, and the entry's own id."""
        place, content = entry
        known = content.get("id") if isinstance(content, dict) else None
        return f"entry {place}" if known is None else f"entry {place} (id {known!r})"


def read_list(path: Path) -> list[Any]:
    """The list in a JSON file, or the objects in a file of one a line.

    Raises:
        ValueError: if it is neither, or no UTF-8.
    """
    try:
        text = path.read_text("utf-8")
        if path.suffix == ".jsonl":
            return [json.loads(line) for line in text.splitlines() if line.strip()]
        content = json.loads(text)
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON in UTF-8: {error}.") from error
    if not isinstance(content, list):
        raise ValueError(f"{path} holds no list: a list of conversations was expected.")
    return content


def _names(entry: Any) -> list[Any]:
    """What an entry says its images are called."""
    named = entry.get("image", []) if isinstance(entry, dict) else []
    return named if isinstance(named, list) else [named]
