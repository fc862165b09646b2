"""Captions as COCO writes them: one JSON with images and annotations, beside a folder of images."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lit_eve_data.disk.records import BadSampleError
from lit_eve_data.sources.base import FileOptions, file_mark, files_mark, shuffled_splits
from lit_eve_data.sources.conversations import captioned
from lit_eve_data.sources.validation import ImageRules, check_image, check_text, read_below

Entry = tuple[str, Any, Any]
"""Name of the annotation, file of its image, caption, whatever they turn out to be."""


@dataclass(frozen=True)
class CocoSource:
    """`{"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]}`.

    Args:
        file: the JSON.
        images: folder the file names are relative to.
        options: sizes, shares, seed.
    """

    file: Path
    images: Path
    options: FileOptions

    def description(self) -> dict[str, Any]:
        """Where it is, which version of it and of its images, and what is done with it."""
        return {
            "type": "coco",
            "file": file_mark(self.file),
            "images": str(self.images.resolve()),
            "pictures": self._pictures,
            "options": self.options.as_json(),
        }

    def splits(self) -> Mapping[str, Sequence[Entry]]:
        """All captions; those of one image are held out together.

        Raises:
            ValueError: if the file is not as COCO writes it.
        """
        entries = self._entries
        marks = [[str(entry[1])] for entry in entries]
        return shuffled_splits(entries, marks, self.options.held_out, self.options.seed)

    @cached_property
    def _entries(self) -> list[Entry]:
        try:
            content = json.loads(self.file.read_text("utf-8"))
            files = {image["id"]: image["file_name"] for image in content["images"]}
            entries: list[Entry] = [
                (f"annotation {a.get('id', place)}", files.get(a["image_id"]), a["caption"])
                for place, a in enumerate(content["annotations"])
            ]
        except (UnicodeDecodeError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{self.file} does not hold captions as COCO writes them: {error!r}."
            ) from error
        return entries[: self.options.limit]

    @cached_property
    def _pictures(self) -> str:
        """Changes with the files of the pictures."""
        return files_mark(self.images, (entry[1] for entry in self._entries))

    @property
    def maker(self) -> CocoMaker:
        """Reads images and checks captions."""
        return CocoMaker(self.images, self.options.rules)


@dataclass(frozen=True)
class CocoMaker:
    """Reads images and checks captions."""

    images: Path
    rules: ImageRules

    def __call__(self, entry: Entry) -> bytes:
        """The record of a caption."""
        name, file, caption = entry
        if file is None:
            raise BadSampleError("missing", "its image is not in the list of images.")
        image = check_image(read_below(self.images, file), self.rules)
        return captioned(name, check_text(caption), [image], "caption/coco")

    def name(self, entry: Entry) -> str:
        """The annotation."""
        return entry[0]
