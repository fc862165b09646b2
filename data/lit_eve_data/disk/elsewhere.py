"""Datasets that lie elsewhere: what a plan needs is copied here, chunks are fetched when read.

A copy has the manifest, the indices and the facts of the samples; it is named after address and
manifest, so a dataset that changes is another copy. Chunks are checked against the manifest when
they arrive and share a limited space, from which those go first that were not used for longest.
Processes of one machine share the copy: whoever needs a chunk first fetches it, the others wait.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from filelock import FileLock

from lit_eve_data.disk.manifest import (
    ELSEWHERE,
    NAME,
    FileStamp,
    Manifest,
    hash_file,
    is_chunk,
    parse_manifest,
)
from lit_eve_data.disk.stores import Store, open_store

GIGABYTE = 1_000_000_000
DEFAULT_SPACE = 50 * GIGABYTE
_FETCHERS = 2  # chunks that are fetched ahead at a time


def local_copy(address: str, root: Path | None = None, space: int = DEFAULT_SPACE) -> Path:
    """The folder that stands for a dataset elsewhere; chunks come into it as they are read.

    Args:
        address: of the dataset, a URL.
        root: of all copies; None: `$LIT_EVE_CACHE`, or the user's cache.
        space: bytes its chunks may take here.

    Raises:
        ValueError: if there is no whole dataset at the address.
    """
    root = root or cache_folder() / "remote"
    root.mkdir(parents=True, exist_ok=True)
    store = open_store(address)
    text = manifest_at(store)
    if text is None:
        raise ValueError(
            f"{address} holds no {NAME}: no dataset was prepared there, or its upload was "
            "interrupted. Start `lit-eve prepare` again to go on."
        )
    manifest = parse_manifest(text, f"{address}/{NAME}")
    directory = root / hashlib.sha256(f"{address}\0".encode() + text).hexdigest()[:20]
    with FileLock(root / f".{directory.name}.lock"):
        directory.mkdir(exist_ok=True)
        content = {"address": address, "space": space}
        (directory / ELSEWHERE).write_text(json.dumps(content))
        for name, stamp in _stamps(manifest).items():
            if not is_chunk(name) and not (directory / name).is_file():
                _fetch(store, name, stamp, directory)
        (directory / NAME).write_bytes(text)
    return directory


def verify_at(address: str, progress: Callable[[int, int], None] | None = None) -> Manifest:
    """Fetch every file of a dataset elsewhere, and compare.

    Args:
        address: of the dataset, a URL.
        progress: called with bytes fetched and bytes in all.

    Raises:
        ValueError: if there is no dataset, or naming the first file that is not as prepared.
    """
    store = open_store(address)
    text = manifest_at(store)
    if text is None:
        raise ValueError(f"{address} holds no {NAME}: there is nothing to verify.")
    manifest, done = parse_manifest(text, f"{address}/{NAME}"), 0
    for name, stamp in _stamps(manifest).items():
        with TemporaryDirectory() as folder:
            _fetch(store, name, stamp, Path(folder))
        done += stamp.bytes
        if progress is not None:
            progress(done, manifest.num_bytes)
    return manifest


def manifest_at(store: Store) -> bytes | None:
    """The manifest in a store, or None if there is none."""
    if not store.exists(NAME):
        return None
    with TemporaryDirectory() as folder:
        store.get(NAME, Path(folder, NAME))
        return Path(folder, NAME).read_bytes()


@dataclass
class ChunkSource:
    """Where the chunks of a copy come from.

    Args:
        directory: of the copy.
        address: of the dataset.
        space: bytes that chunks may take here.
        stamps: of the chunks, by name.
    """

    directory: Path
    address: str
    space: int
    stamps: Mapping[str, FileStamp]
    _store: Store | None = field(default=None, init=False, repr=False)
    _ahead: dict[str, Future[None]] = field(default_factory=dict, init=False, repr=False)
    _threads: ThreadPoolExecutor | None = field(default=None, init=False, repr=False)

    @classmethod
    def of(cls, directory: Path, manifest: Manifest) -> ChunkSource | None:
        """Of a directory, or None if its chunks lie in it."""
        path = directory / ELSEWHERE
        if not path.is_file():
            return None
        about = json.loads(path.read_text())
        chunks = {name: s for name, s in _stamps(manifest).items() if is_chunk(name)}
        return cls(directory, about["address"], about["space"], chunks)

    @contextmanager
    def present(self, name: str) -> Iterator[None]:
        """The chunk is here inside this block; outside it may be gone at any time."""
        self.directory.joinpath(name).parent.mkdir(parents=True, exist_ok=True)
        with self._lock(name):
            path = self.directory / name
            if not path.is_file():
                self._make_room(self.stamps[name].bytes, keep=name)
                _fetch(self._opened(), name, self.stamps[name], self.directory)
            os.utime(path)
            yield

    def fetch_ahead(self, names: Sequence[str]) -> None:
        """Begin to fetch chunks that are not here, in the background."""
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_FETCHERS, thread_name_prefix="fetching")
        self._ahead = {name: job for name, job in self._ahead.items() if not job.done()}
        for name in names:
            if name not in self._ahead and not (self.directory / name).is_file():
                self._ahead[name] = self._threads.submit(self._try, name)

    def _try(self, name: str) -> None:
        """Fetch a chunk; a failure is met again, and reported, by whoever reads it."""
        with suppress(OSError, ValueError), self.present(name):
            pass

    def _lock(self, name: str) -> FileLock:
        return FileLock(self.directory / f"{name}.lock")

    def _opened(self) -> Store:
        if self._store is None:
            self._store = open_store(self.address)
        return self._store

    def _make_room(self, wanted: int, keep: str) -> None:
        """Remove chunks that nobody holds, those first that were not used for longest."""
        here = []
        for name in self.stamps:
            with suppress(OSError):  # gone meanwhile
                about = (self.directory / name).stat()
                here.append((about.st_mtime_ns, about.st_size, name))
        taken = sum(size for _, size, _ in here)
        for _, size, name in sorted(here):
            if taken + wanted <= self.space:
                return
            if name != keep and self._remove(name):
                taken -= size

    def _remove(self, name: str) -> bool:
        lock = self._lock(name)
        with suppress(TimeoutError):
            lock.acquire(timeout=0)
            (self.directory / name).unlink(missing_ok=True)
            lock.release()
            return True
        return False

    def __getstate__(self) -> dict[str, Any]:
        """Workers make connections of their own."""
        return {**self.__dict__, "_store": None, "_ahead": {}, "_threads": None}


def _fetch(store: Store, name: str, stamp: FileStamp, directory: Path) -> None:
    """Copy one file here, under its name only when it is the one that was prepared."""
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        store.get(name, partial)
        if hash_file(partial) != stamp:
            raise ValueError(
                f"{name} at its address is not the file that was prepared (sha256 differs): it was "
                "damaged or replaced. Upload the dataset again."
            )
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _stamps(manifest: Manifest) -> dict[str, FileStamp]:
    return {n: stamp for split in manifest.splits.values() for n, stamp in split.files.items()}


def cache_folder() -> Path:
    """Of what is kept on this machine only to be faster: `$LIT_EVE_CACHE`, or the user's cache."""
    own = os.environ.get("LIT_EVE_CACHE")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lit-eve"
