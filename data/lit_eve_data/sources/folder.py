"""A folder of images, without text: what image tokenizers are trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lit_eve_data.sources.base import FileOptions, files_mark, shuffled_splits
from lit_eve_data.sources.conversations import conversation
from lit_eve_data.sources.validation import ImageRules, check_image, check_text, read_below

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".ppm"}


@dataclass(frozen=True)
class FolderSource:
    """All images below a folder; the folder directly below it that an image is in is its kind.

    Args:
        folder: of the images.
        options: sizes, shares, seed.
    """

    folder: Path
    options: FileOptions

    def description(self) -> dict[str, Any]:
        """Where it is, which files of which versions are in it, and what is done with them."""
        return {
            "type": "folder",
            "folder": str(self.folder.resolve()),
            "files": files_mark(self.folder, self._names()),
            "options": self.options.as_json(),
        }

    def splits(self) -> Mapping[str, Sequence[str]]:
        """All images by name."""
        names = self._names()[: self.options.limit]
        return shuffled_splits(names, None, self.options.held_out, self.options.seed)

    @property
    def maker(self) -> FolderMaker:
        """Reads images."""
        return FolderMaker(self.folder, self.options.rules)

    def _names(self) -> list[str]:
        files = (path for path in self.folder.rglob("*") if path.suffix.lower() in SUFFIXES)
        return sorted(path.relative_to(self.folder).as_posix() for path in files if path.is_file())


@dataclass(frozen=True)
class FolderMaker:
    """Reads images."""

    folder: Path
    rules: ImageRules

    def __call__(self, entry: str) -> bytes:
        """The record of an image."""
        image = check_image(read_below(self.folder, entry), self.rules)
        above = check_text(entry).split("/")[0] if "/" in entry else "plain"
        return conversation(entry, [], [image], f"image/{above}")

    def name(self, entry: str) -> str:
        """The file."""
        return entry
