"""The manifest of a prepared dataset: what lies in it, with the sha256 of every file.

It is written last and the directory gets its name after it, so a directory with a manifest is a
whole one. Nothing is read from a directory without one, nor through anything but plain bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

NAME = "MANIFEST.json"
INDEX = "index.json"
ELSEWHERE = "ELSEWHERE.json"
"""In a copy whose chunks are fetched one by one: from where."""
SCHEMA = 2
"""2 where something was appended, which readers of 1 would miss; else 1."""
_SERIALIZERS = (["bytes"],)
"""Column formats that may be read: the others of LitData include pickle, which runs code."""


@dataclass(frozen=True)
class FileStamp:
    """Size and digest of one file."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class SplitManifest:
    """One split: how many samples of which kind, in which files."""

    samples: int
    kinds: dict[str, int]
    rejects: dict[str, int]
    """Inputs that could not be used, by reason; `rejects.jsonl` of the split lists them."""
    files: dict[str, FileStamp]
    """By path below the dataset's directory, with forward slashes."""

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> SplitManifest:
        """What `asdict` made."""
        files = {name: FileStamp(**stamp) for name, stamp in content["files"].items()}
        return cls(content["samples"], content["kinds"], content.get("rejects", {}), files)


@dataclass(frozen=True)
class Part:
    """What was prepared at one time."""

    folder: str
    """Below the dataset's directory; empty for what it began with."""
    source: dict[str, Any]
    """What it was made from: enough to make it again."""
    splits: dict[str, SplitManifest]

    def moved(self, folder: str) -> Part:
        """The same part in another folder."""
        splits = {
            name: replace(split, files={f"{folder}/{f}": s for f, s in split.files.items()})
            for name, split in self.splits.items()
        }
        return Part(folder, self.source, splits)


@dataclass(frozen=True)
class Manifest:
    """A whole dataset."""

    parts: tuple[Part, ...]

    @property
    def source(self) -> dict[str, Any]:
        """What the dataset began with."""
        return self.parts[0].source

    @cached_property
    def splits(self) -> dict[str, SplitManifest]:
        """The splits over all parts."""
        merged: dict[str, SplitManifest] = {}
        for name, split in ((n, s) for part in self.parts for n, s in part.splits.items()):
            known = merged.get(name, SplitManifest(0, {}, {}, {}))
            merged[name] = SplitManifest(
                known.samples + split.samples,
                dict(Counter(known.kinds) + Counter(split.kinds)),
                dict(Counter(known.rejects) + Counter(split.rejects)),
                {**known.files, **split.files},
            )
        return merged

    @property
    def num_bytes(self) -> int:
        """Bytes of all files."""
        return sum(s.bytes for split in self.splits.values() for s in split.files.values())

    def digest(self, split: str) -> str:
        """Identifies the content of a split."""
        text = json.dumps(asdict(self.splits[split]), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def fingerprint(self) -> str:
        """Identifies the content of all splits; the same wherever the dataset lies."""
        text = json.dumps({name: self.digest(name) for name in self.splits}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def holds(self, source: Mapping[str, Any]) -> bool:
        """Whether a part was made from that very source."""
        wanted = json.dumps(source, sort_keys=True)
        return any(json.dumps(part.source, sort_keys=True) == wanted for part in self.parts)


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Write `MANIFEST.json`, the last file of a dataset; there is always a whole one."""
    first, *appended = manifest.parts
    content: dict[str, Any] = {
        "format": "lit-eve-data",
        "schema": SCHEMA if appended else 1,
        "source": first.source,
        "splits": {name: asdict(split) for name, split in first.splits.items()},
    }
    if appended:
        content["appended"] = [asdict(part) for part in appended]
    partial = directory / f"{NAME}.tmp"
    partial.write_text(json.dumps(content, indent=1) + "\n")
    partial.replace(directory / NAME)


def read_manifest(directory: Path) -> Manifest:
    """Read and check the manifest of a local dataset; chunk contents are not hashed.

    Beside `ELSEWHERE` chunks may be missing: they are fetched when they are needed.

    Raises:
        ValueError: if there is none, if it is of another version, if a file is missing or has
            another size, or if an index names another serializer or a file outside the dataset.
    """
    path = directory / NAME
    if not path.is_file():
        raise ValueError(
            f"{directory} holds no {NAME}: it was not made by `lit-eve prepare`, or preparing was "
            "interrupted. Training reads only datasets that were finished and verified. Prepare it "
            "again."
        )
    manifest = parse_manifest(path.read_bytes(), str(path))
    chunks = not (directory / ELSEWHERE).is_file()
    for part in manifest.parts:
        for name, split in part.splits.items():
            _check_split(directory, "/".join(filter(None, (part.folder, name))), split, chunks)
    return manifest


def parse_manifest(text: bytes, address: str) -> Manifest:
    """What a manifest says.

    Raises:
        ValueError: if it makes no sense, is of another version, or names files outside.
    """
    try:
        content = json.loads(text)
        if content["schema"] not in range(1, SCHEMA + 1):
            raise ValueError(f"its schema is {content['schema']!r}, this program reads {SCHEMA}")
        parts = [{"folder": "", **content}, *content.get("appended", ())]
        manifest = Manifest(tuple(_part(part) for part in parts))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{address} cannot be used: {error}. Prepare the dataset again."
        ) from error
    names = [file for split in manifest.splits.values() for file in split.files]
    for name in (*names, *(part.folder for part in manifest.parts)):
        if not _is_inside(name):
            raise ValueError(
                f"{address} names {name!r}, which is outside the dataset: somebody changed it. Do "
                "not use this dataset."
            )
    return manifest


def _part(content: Mapping[str, Any]) -> Part:
    splits = {name: SplitManifest.from_json(split) for name, split in content["splits"].items()}
    return Part(content["folder"], content["source"], splits)


def verify(directory: Path, progress: Callable[[int, int], None] | None = None) -> Manifest:
    """Hash every file of a dataset and compare.

    Args:
        directory: the dataset.
        progress: called with bytes read and bytes in all.

    Raises:
        ValueError: naming every file whose content is not the one that was prepared.
    """
    manifest = read_manifest(directory)
    damaged, done = [], 0
    for split in manifest.splits.values():
        for name, stamp in split.files.items():
            if hash_file(directory / name).sha256 != stamp.sha256:
                damaged.append(name)
            done += stamp.bytes
            if progress is not None:
                progress(done, manifest.num_bytes)
    if damaged:
        raise ValueError(
            f"{directory}: {', '.join(damaged)} changed since being prepared (sha256 differs). "
            "Copy the dataset again from a good one, or delete it and prepare it again."
        )
    return manifest


def hash_file(path: Path) -> FileStamp:
    """Size and sha256 of a file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return FileStamp(path.stat().st_size, digest)


def _check_split(directory: Path, name: str, split: SplitManifest, chunks: bool) -> None:
    for file, stamp in split.files.items():
        if is_chunk(file) and not chunks:
            continue
        path = directory / file
        size = path.stat().st_size if path.is_file() else None
        if size != stamp.bytes:
            found = "is missing" if size is None else f"has {size} bytes instead of {stamp.bytes}"
            raise ValueError(f"{path} {found}: copy or prepare the dataset again.")
    index = f"{name}/{INDEX}"
    if index not in split.files:
        raise ValueError(f"{directory / NAME} does not list {index}: prepare the dataset again.")
    path = directory / index
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != split.files[index].sha256:
        raise ValueError(f"{path} is not the one that was prepared: prepare the dataset again.")
    check_index(path, json.loads(content), {PurePosixPath(file).name for file in split.files})


def is_chunk(name: str) -> bool:
    """Whether a file of a dataset holds samples."""
    return name.endswith(".bin")


def check_index(path: Path, index: dict[str, Any], files: set[str]) -> None:
    """Refuse an index that would run code or leave its directory.

    Raises:
        ValueError: saying what is wrong with it.
    """
    form = index["config"]["data_format"]
    if form not in _SERIALIZERS:
        raise ValueError(
            f"{path} stores {form}: only {_SERIALIZERS[0]} is read here, because other formats can "
            "run code when they are loaded. Prepare the dataset with `lit-eve prepare`."
        )
    for chunk in index["chunks"]:
        if chunk["filename"] not in files or not _is_inside(chunk["filename"]):
            raise ValueError(
                f"{path} names the chunk {chunk['filename']!r}, which is not a file of this "
                "dataset: somebody changed it. Do not use this dataset."
            )


def _is_inside(name: str) -> bool:
    """Whether a path stays below the directory it is relative to."""
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and "\\" not in name
