"""The table of sources, and how a source is recognised by what lies at its address."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lit_eve_data.sources.base import FileOptions, Source
from lit_eve_data.sources.coco import CocoSource
from lit_eve_data.sources.composed import composed_from
from lit_eve_data.sources.folder import SUFFIXES, FolderSource
from lit_eve_data.sources.llava import LlavaSource
from lit_eve_data.sources.parquet import ParquetSource
from lit_eve_data.sources.texts import TextSource
from lit_eve_data.sources.webdataset import WebDatasetSource

FILE_TYPES = ("llava", "coco", "webdataset", "parquet", "folder", "text")
"""Types of sources that are files from elsewhere."""
OF_FILES: dict[str, Callable[[list[Path], FileOptions], Source]] = {
    "webdataset": WebDatasetSource,
    "parquet": ParquetSource,
    "text": TextSource,
}


def source_at(
    address: Path, options: FileOptions, kind: str | None = None, images: Path | None = None
) -> Source:
    """The source at a path.

    Args:
        address: a file, or a folder of files.
        options: sizes, shares, seed.
        kind: one of `FILE_TYPES`; None looks at what is there.
        images: folder of the images that a JSON names; None takes the JSON's own.

    Raises:
        ValueError: if there is nothing, or nothing that is recognised.
    """
    if not address.exists():
        raise ValueError(f"there is nothing at {address}: name a file or a folder.")
    kind = kind or _recognised(address)
    if kind not in FILE_TYPES:
        raise ValueError(f"unknown type of source {kind!r}: known are {', '.join(FILE_TYPES)}.")
    if kind in ("llava", "coco"):
        folder = images or address.parent
        if not folder.is_dir():
            raise ValueError(f"the image folder {folder} is no folder.")
        made = LlavaSource if kind == "llava" else CocoSource
        return made(address, folder, options)
    if kind == "folder":
        return FolderSource(address, options)
    suffixes = {"webdataset": (".tar",), "parquet": (".parquet",), "text": (".txt", ".jsonl")}[kind]
    files = _files(address, suffixes)
    if not files:
        raise ValueError(f"{address} holds no {' or '.join(suffixes)} files.")
    return OF_FILES[kind](files, options)


def source_from(description: Mapping[str, Any]) -> Source:
    """The source a description describes.

    Raises:
        ValueError: if it is of an unknown type or was written by another version.
    """
    kind = description.get("type")
    if kind in ("scenes", "photos"):
        return composed_from(description)
    if kind not in FILE_TYPES:
        raise ValueError(f"unknown type of source {kind!r}: known are scenes, photos, and files.")
    options = FileOptions(**description["options"])
    if kind in ("llava", "coco"):
        made = LlavaSource if kind == "llava" else CocoSource
        return made(Path(description["file"]["path"]), Path(description["images"]), options)
    if kind == "folder":
        return FolderSource(Path(description["folder"]), options)
    return OF_FILES[kind]([Path(mark["path"]) for mark in description["files"]], options)


def _recognised(address: Path) -> str:
    """The type of a source by its files.

    Raises:
        ValueError: if it could be nothing or anything.
    """
    by_suffix = {".tar": "webdataset", ".parquet": "parquet", ".txt": "text"}
    if address.is_file():
        if address.suffix in by_suffix:
            return by_suffix[address.suffix]
        if address.suffix in (".json", ".jsonl"):
            return _recognised_json(address)
        raise ValueError(f"{address} is of no known type: name it with --type.")
    found = {path.suffix.lower() for path in address.rglob("*") if path.is_file()}
    for suffix in (".tar", ".parquet"):
        if suffix in found:
            return by_suffix[suffix]
    if found & SUFFIXES:
        return "folder"
    if found & {".txt", ".jsonl"}:
        return "text"
    raise ValueError(f"{address} holds no images, tars, Parquet or text files.")


def _recognised_json(path: Path) -> str:
    """LLaVA's list, COCO's object or lines of text: by the first characters."""
    with path.open("rb") as file:
        start = file.read(65536).lstrip()
    if path.suffix == ".jsonl":
        first = start.split(b"\n")[0]
        return "text" if b'"text"' in first and b'"conversations"' not in first else "llava"
    if start.startswith(b"["):
        return "llava"
    if start.startswith(b"{"):
        return "coco"
    raise ValueError(f"{path} is no JSON that is known: a list (LLaVA) or an object (COCO).")


def _files(address: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """The files of a source, in order of their names."""
    if address.is_file():
        return [address]
    return sorted(path for path in address.rglob("*") if path.suffix in suffixes and path.is_file())
