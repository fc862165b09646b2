"""WebDataset's tars: the files of a sample lie one after another and share a name."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from lit_eve_data.disk.records import BadSampleError
from lit_eve_data.sources.base import FileOptions, file_mark, picture_mark, shuffled_splits
from lit_eve_data.sources.conversations import captioned, conversation, placed, turns_of
from lit_eve_data.sources.validation import MOST_BYTES, ImageRules, check_image, check_text

IMAGES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "avif")
Member = tuple[str, int, int]
"""Extension, place in the tar, bytes."""


@dataclass(frozen=True)
class Entry:
    """The files of one sample in a tar."""

    tar: str
    key: str
    members: tuple[Member, ...]
    problem: tuple[str, str] | None = None
    """(reason, message) if it cannot be used as it lies there."""


@dataclass(frozen=True)
class WebDatasetSource:
    """Tars with an image, and a caption (txt) or more (json), as img2dataset writes them.

    Args:
        tars: the shards.
        options: sizes, shares, seed.
    """

    tars: Sequence[Path]
    options: FileOptions

    def description(self) -> dict[str, Any]:
        """Which shards, which versions of them, and what is done with them."""
        return {
            "type": "webdataset",
            "files": [file_mark(tar) for tar in self.tars],
            "options": self.options.as_json(),
        }

    def splits(self) -> Mapping[str, Sequence[Entry]]:
        """All samples of all shards; those with the same images are held out together."""
        entries = [entry for tar in self.tars for entry in scan(tar)][: self.options.limit]
        marks = _marks(entries) if self.options.held_out else None
        return shuffled_splits(entries, marks, self.options.held_out, self.options.seed)

    @property
    def maker(self) -> WebDatasetMaker:
        """Reads samples where they lie in the tars."""
        return WebDatasetMaker(self.options.rules)


@dataclass(frozen=True)
class WebDatasetMaker:
    """Reads samples where they lie in the tars; nothing is ever unpacked."""

    rules: ImageRules

    def __call__(self, entry: Entry) -> bytes:
        """The record of a sample."""
        if entry.problem is not None:
            raise BadSampleError(*entry.problem)
        files = dict(_read(entry))
        images = [check_image(files[form], self.rules) for form in _images(entry)]
        name = self.name(entry)
        about = _json(files["json"]) if "json" in files else {}
        if "conversations" in about:
            turns = placed(turns_of(about["conversations"]), len(images))
            return conversation(name, turns, images)
        caption = _text(files["txt"]) if "txt" in files else about.get("caption")
        if caption is None:
            return conversation(name, [], images, "image/webdataset")
        return captioned(name, check_text(caption).strip(), images, "caption/webdataset")

    def name(self, entry: Entry) -> str:
        """Shard and key."""
        return f"{Path(entry.tar).name}/{entry.key}"


def _images(entry: Entry) -> list[str]:
    """The extensions of a sample's images, in the order they are shown.

    One image has its format as extension (`jpg`); several are numbered (`0.jpg`, `1.jpg`).

    Raises:
        BadSampleError: if there is none, or if it is not said which of several are meant.
    """
    found = [form for form, _, _ in entry.members if form.rpartition(".")[2] in IMAGES]
    if not found:
        names = sorted(form for form, _, _ in entry.members)
        raise BadSampleError("missing", f"no image among {names or 'its files'}.")
    numbered = {form: form.partition(".")[0] for form in found}
    if len(found) > 1 and not all(number.isdecimal() for number in numbered.values()):
        raise BadSampleError(
            "several_images",
            f"it is not said which of {found} are shown, and in which order: number those that are "
            "(0.jpg, 1.jpg), leave one, or name the others otherwise.",
        )
    if len(set(numbered.values())) < len(found):
        raise BadSampleError("several_images", f"two of {found} have one number.")
    return sorted(found, key=lambda form: int(numbered[form])) if len(found) > 1 else found


def _marks(entries: Sequence[Entry]) -> list[list[str]]:
    """Of the images of each sample."""
    marks = []
    for tar, samples in groupby(entries, lambda entry: entry.tar):
        with Path(tar).open("rb") as file:
            for entry in samples:
                images = [
                    (place, size)
                    for form, place, size in entry.members
                    if form.rpartition(".")[2] in IMAGES and entry.problem is None
                ]
                marks.append([picture_mark(n, partial(_piece, file, place)) for place, n in images])
    return marks


def _piece(file: BinaryIO, place: int, start: int, count: int) -> bytes:
    """Some bytes of a file that lies at `place` of a tar."""
    file.seek(place + start)
    return file.read(count)


def scan(tar: Path) -> list[Entry]:
    """The samples of a shard: neighbours in the tar that share everything before the first dot.

    Raises:
        ValueError: if it is compressed, so that samples cannot be read where they lie.
    """
    with tar.open("rb") as file:
        start = file.read(6)
    if start[:2] == b"\x1f\x8b" or start[:3] == b"BZh" or start == b"\xfd7zXZ\x00":
        raise ValueError(f"{tar} is compressed: unpack it to a plain tar first.")
    size = tar.stat().st_size
    entries: list[Entry] = []
    try:
        with tarfile.open(tar, "r:") as archive:
            for key, form, member in _files(archive):
                problem = _problem(member, size)
                part: tuple[Member, ...] = ((form, member.offset_data, member.size),)
                if entries and entries[-1].key == key:
                    last = entries.pop()
                    part, problem = last.members + part, last.problem or problem
                entries.append(Entry(str(tar), key, part, problem))
    except (tarfile.TarError, OSError, ValueError) as error:
        problem = ("truncated", f"the tar cannot be read behind sample {len(entries)}: {error}")
        entries.append(Entry(str(tar), f"behind {len(entries)}", (), problem))
    return entries


def _files(archive: tarfile.TarFile) -> Iterator[tuple[str, str, tarfile.TarInfo]]:
    """Key and extension of every file of an archive."""
    for member in archive:
        if member.isdir():
            continue
        folder, _, name = member.name.rpartition("/")
        key, _, form = name.partition(".")
        yield f"{folder}/{key}".lstrip("/") if folder else key, form.lower(), member


def _problem(member: tarfile.TarInfo, size: int) -> tuple[str, str] | None:
    """What is wrong with a file of an archive, seen from outside."""
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts:
        return "path", f"the name {member.name!r} leads out of the archive."
    if not member.isreg():
        return "path", f"{member.name!r} is a link or a device, not a file."
    if member.offset_data + member.size > size:
        return "truncated", f"{member.name!r} goes on behind the end of the tar."
    if member.size > MOST_BYTES:
        return "too_large", f"{member.name!r} has more than {MOST_BYTES:,} bytes."
    return None


def _read(entry: Entry) -> Iterator[tuple[str, bytes]]:
    with Path(entry.tar).open("rb") as file:
        for form, place, size in entry.members:
            file.seek(place)
            yield form, file.read(size)


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadSampleError("bad_text", f"its text is no UTF-8: {error}") from error


def _json(data: bytes) -> dict[str, Any]:
    try:
        content = json.loads(_text(data))
    except (json.JSONDecodeError, RecursionError) as error:
        raise BadSampleError("bad_text", f"its json cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise BadSampleError("bad_text", "its json is no object.")
    return content
