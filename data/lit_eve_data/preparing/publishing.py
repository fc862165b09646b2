"""Datasets to a URL: prepared on this machine first, then copied, the manifest last."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from lit_eve_data.disk.elsewhere import cache_folder, manifest_at
from lit_eve_data.disk.manifest import (
    NAME,
    FileStamp,
    Manifest,
    parse_manifest,
    read_manifest,
    write_manifest,
)
from lit_eve_data.disk.stores import Store, open_store
from lit_eve_data.preparing.prepare import Preparing, Progress, part_folder, prepare
from lit_eve_data.sources import Source, fingerprint

_COPIED = "copied.json"


@dataclass(frozen=True)
class Staged:
    """A dataset that is prepared here and belongs elsewhere."""

    directory: Path
    address: str
    known: Manifest | None
    """Of what lies at the address, to which it is added."""
    folder: str
    """Where it goes below the address."""


def publish(
    source: Source,
    address: str,
    progress: Progress | None = None,
    options: Preparing = Preparing(),  # noqa: B008  # frozen
) -> None:
    """Prepare `source` as the dataset at a URL, unless it is there already."""
    staged = stage(source, address, progress, options)
    if staged is not None:
        send(staged)


def stage(
    source: Source,
    address: str,
    progress: Progress | None = None,
    options: Preparing = Preparing(),  # noqa: B008  # frozen
) -> Staged | None:
    """Prepare `source` in the user's cache; interrupted, it goes on when started again.

    Args:
        source: what to prepare.
        address: of the dataset, a URL.
        progress: called with inputs dealt with and inputs in all.
        options: how.

    Returns:
        What to send there, or None if it is there already.

    Raises:
        OSError: if the store fails.
        RuntimeError: if preparing failed.
        ValueError: if there is another dataset and nothing is to be appended, or the reverse.
    """
    there = manifest_at(open_store(address))
    known = None if there is None else parse_manifest(there, f"{address}/{NAME}")
    if known is not None and known.holds(source.description()):
        return None
    _check(known, address, options.append)
    mark = fingerprint(source)
    name = hashlib.sha256(f"{address} {mark}".encode()).hexdigest()[:20]
    directory = cache_folder() / "staged" / name
    prepare(source, directory, progress, replace(options, append=False))
    return Staged(directory, address, known, "" if known is None else part_folder(mark))


def send(staged: Staged, progress: Progress | None = None) -> None:
    """Copy what was staged, the manifest last, so that nobody reads the half of it; and remove it.

    Args:
        staged: what.
        progress: called with bytes copied and bytes in all.

    Raises:
        OSError: if the store fails; files that were copied are not copied again.
    """
    store = open_store(staged.address)
    _copy(staged.directory, store, staged.folder, progress)
    parts = read_manifest(staged.directory).parts
    if staged.known is not None:
        parts = (*staged.known.parts, parts[0].moved(staged.folder))
    with TemporaryDirectory() as folder:
        write_manifest(Path(folder), Manifest(parts))
        store.put(Path(folder, NAME), NAME)
    shutil.rmtree(staged.directory)


def _check(known: Manifest | None, address: str, append: bool) -> None:
    if known is None and append:
        raise ValueError(f"there is no dataset at {address} to append to: leave out --append.")
    if known is not None and not append:
        raise ValueError(
            f"{address} holds a dataset made of something else: give another --to, or --append."
        )


def _copy(staged: Path, store: Store, folder: str, progress: Progress | None) -> None:
    """Copy all files that the manifest lists; what was copied before is remembered."""
    manifest = read_manifest(staged)
    stamps: dict[str, FileStamp] = {}
    for split in manifest.splits.values():
        stamps |= split.files
    ledger = staged / _COPIED
    copied: list[str] = json.loads(ledger.read_text()) if ledger.is_file() else []
    done = 0
    for name, stamp in stamps.items():
        if name not in copied:
            store.put(staged / name, f"{folder}/{name}" if folder else name)
            copied.append(name)
            ledger.write_text(json.dumps(copied))
        done += stamp.bytes
        if progress is not None:
            progress(done, manifest.num_bytes)
