"""Plain text, for language models."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lit_eve_data.disk.records import TEXT, BadSampleError, Sample, encode
from lit_eve_data.sources.base import FileOptions, file_mark, shuffled_splits
from lit_eve_data.sources.validation import check_text

LONGEST = 2_000
"""Characters of a piece: about 500 tokens, a row of moderate length."""
Entry = tuple[str, Any]
"""Name and words."""


@dataclass(frozen=True)
class TextSource:
    """Text files, cut into pieces at empty lines; or JSON lines with a `text` each.

    Args:
        files: the texts.
        options: shares, seed.
    """

    files: Sequence[Path]
    options: FileOptions

    def description(self) -> dict[str, Any]:
        """Which files, which versions of them, and what is done with them."""
        return {
            "type": "text",
            "files": [file_mark(file) for file in self.files],
            "options": self.options.as_json(),
        }

    def splits(self) -> Mapping[str, Sequence[Entry]]:
        """All pieces; those of one document are held out together.

        Raises:
            ValueError: if a file is no UTF-8, or no JSON where it should be.
        """
        pieces = [
            (f"{file.name}:{number}.{part}", piece)
            for file in self.files
            for number, document in enumerate(_documents(file))
            for part, piece in enumerate(cut(document) if isinstance(document, str) else [document])
        ][: self.options.limit]
        marks = [[name.rpartition(".")[0]] for name, _ in pieces]
        return shuffled_splits(pieces, marks, self.options.held_out, self.options.seed)

    @property
    def maker(self) -> TextMaker:
        """Checks pieces."""
        return TextMaker()


@dataclass(frozen=True)
class TextMaker:
    """Checks pieces of text."""

    def __call__(self, entry: Entry) -> bytes:
        """The record of a piece."""
        return text_record(entry[0], check_text(entry[1]))

    def name(self, entry: Entry) -> str:
        """File, document, piece."""
        return entry[0]


def text_record(name: str, text: str) -> bytes:
    """The record of a text to be learnt as it stands.

    Raises:
        BadSampleError: if there are no words in it.
    """
    if not text.strip():
        raise BadSampleError("empty_answer", "the text is empty: there is nothing to learn.")
    try:
        return encode(Sample(name, "text/plain", [{"role": TEXT, "content": text}], []))
    except ValueError as error:
        raise BadSampleError("placeholders", str(error)) from error


def cut(document: str) -> Iterator[str]:
    """A document in pieces of at most `LONGEST` characters, cut where it hurts least."""
    while len(document) > LONGEST:
        for border in ("\n\n", "\n", ". ", " "):
            place = document.rfind(border, LONGEST // 4, LONGEST)
            if place > 0:
                break
        else:
            place, border = LONGEST, ""
        yield document[: place + len(border)].rstrip()
        document = document[place + len(border) :]
    if document.strip():
        yield document.rstrip()


def _documents(path: Path) -> Iterator[Any]:
    """The whole file, or the text of every line of JSON."""
    try:
        content = path.read_text("utf-8")
        if path.suffix != ".jsonl":
            yield content
            return
        for line in filter(str.strip, content.splitlines()):
            entry = json.loads(line)
            yield entry.get("text") if isinstance(entry, dict) else None
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is no text in UTF-8: {error}") from error
