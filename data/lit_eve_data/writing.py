"""The process that prepares a dataset: run as `python -m lit_eve_data.writing`, by `prepare`.

It stands alone, so that nothing LitData does to a process (start method, signal handlers, seeds)
reaches the training. Workers make the records, this process writes them in order, re-reads all of
them, writes the manifest and only then gives the directory its name. Progress goes to standard
output, one JSON object a line. It ends when its standard input closes, that is, with its parent.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from itertools import islice
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

from lit_eve_data.manifest import (
    INDEX,
    Manifest,
    SplitManifest,
    check_index,
    hash_file,
    write_manifest,
)
from lit_eve_data.records import checksum, decode, decode_header
from lit_eve_data.sidecar import SidecarRows
from lit_eve_data.sources import Source, source_from

CHUNK_BYTES = 64_000_000
_TASK = 200  # records a worker makes at a time
_AHEAD = 6  # tasks per worker that may be finished and waiting: bounds memory
_source: Source  # of a worker process


def main() -> None:
    """Read the order from standard input, and carry it out."""
    order = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    source = source_from(order["source"])
    write_dataset(source, Path(order["partial"]), order["workers"], progress=_tell)
    os.replace(order["partial"], order["final"])


def write_dataset(
    source: Source,
    directory: Path,
    workers: int,
    chunk_bytes: int = CHUNK_BYTES,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Write, verify and stamp all splits of a source into `directory`.

    Args:
        source: what to write.
        directory: an empty one.
        workers: processes that make records; 0 makes them here.
        chunk_bytes: about how large a chunk file is.
        progress: called with records written and records in all.
    """
    splits = {name: count for name, count in source.splits().items() if count}
    total, done = sum(splits.values()), 0
    stamped = {}
    with _records(source, splits, workers) as blobs:
        progress(0, total)
        for name, count in splits.items():
            writer = _SplitWriter(directory / name, chunk_bytes)
            for number in range(count):
                writer.add(number, next(blobs))
                done += 1
                if done % _TASK == 0 or done == total:
                    progress(done, total)
            stamped[name] = writer.close()
    write_manifest(directory, Manifest(source.description(), stamped))
    for path in (*directory.rglob("*"), directory):
        _to_disk(path)


class _SplitWriter:
    """Writes the records of one split, then proves that they can be read."""

    def __init__(self, folder: Path, chunk_bytes: int) -> None:
        from litdata.streaming.writer import BinaryWriter  # type: ignore[import-untyped]  # seconds

        self.folder = folder
        self._chunks = BinaryWriter(str(folder), chunk_bytes=chunk_bytes)
        self._rows = SidecarRows()
        self._checksums: list[int] = []

    def add(self, number: int, blob: bytes) -> None:
        """Write one record, the next one."""
        self._chunks.add_item(number, blob)
        self._rows.add(decode_header(blob))
        self._checksums.append(checksum(blob))

    def close(self) -> SplitManifest:
        """Finish the chunks, stamp the files and re-read everything."""
        self._chunks.done()
        self._chunks.merge(1)
        index = json.loads((self.folder / INDEX).read_text())
        self._rows.write(self.folder, [chunk["chunk_size"] for chunk in index["chunks"]])
        files = {path.name: hash_file(path) for path in sorted(self.folder.iterdir())}
        check_index(self.folder / INDEX, index, set(files))
        self._reread()
        stamps = {f"{self.folder.name}/{name}": stamp for name, stamp in files.items()}
        return SplitManifest(len(self._rows), self._rows.counts(), stamps)

    def _reread(self) -> None:
        """Compare every record of the finished chunks with what was handed in."""
        from litdata import StreamingDataset  # type: ignore[import-untyped]

        chunks = StreamingDataset(str(self.folder), shuffle=False, drop_last=False, batch_decode=0)
        if len(chunks) != len(self._checksums):
            raise RuntimeError(f"{len(chunks)} records of {len(self._checksums)} were written")
        for number, expected in enumerate(self._checksums):
            blob = bytes(chunks[number])
            decode(blob)
            if checksum(blob) != expected:
                raise RuntimeError(f"record {number} of {self.folder} is not the one handed in")


@contextmanager
def _records(source: Source, splits: dict[str, int], workers: int) -> Iterator[Iterator[bytes]]:
    """All records of all splits in order."""
    tasks = (
        (name, start, min(start + _TASK, count))
        for name, count in splits.items()
        for start in range(0, count, _TASK)
    )
    if workers == 0:
        yield (source.record(name, i) for name, start, stop in tasks for i in range(start, stop))
        return
    with ProcessPoolExecutor(
        workers, get_context("spawn"), initializer=_begin, initargs=(source.description(),)
    ) as pool:
        # Begun here, not when the first record is wanted: meanwhile the writer imports LitData.
        first = deque(pool.submit(_make, *task) for task in islice(tasks, _AHEAD * workers))
        yield _in_order(pool, first, tasks)


def _in_order(
    pool: ProcessPoolExecutor,
    waiting: deque[Future[list[bytes]]],
    tasks: Iterator[tuple[str, int, int]],
) -> Iterator[bytes]:
    """The results in the order of their tasks; for each one taken, one more task is begun."""
    while waiting:
        yield from waiting.popleft().result()
        waiting.extend(pool.submit(_make, *task) for task in islice(tasks, 1))


def _begin(description: dict[str, Any]) -> None:
    """Tell a worker what it works on."""
    global _source
    _source = source_from(description)
    threading.Thread(target=_end_with_writer, daemon=True).start()


def _end_with_writer() -> None:
    """Wait in a worker for the writing process to go away, killed for instance."""
    writer = parent_process()
    if writer is not None:
        writer.join()
        os._exit(1)


def _make(split: str, start: int, stop: int) -> list[bytes]:
    return [_source.record(split, index) for index in range(start, stop)]


def _to_disk(path: Path) -> None:
    """Make sure a crash of the machine cannot leave an empty file behind a good name."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:  # some file systems cannot sync directories
        if path.is_file():
            raise
    finally:
        os.close(descriptor)


def _tell(done: int, total: int) -> None:
    print(json.dumps({"done": done, "total": total}), flush=True)


def _end_with_parent() -> None:
    """Wait for the parent to go away; then there is nobody to prepare for."""
    sys.stdin.read()
    os.killpg(os.getpid(), signal.SIGKILL)  # it leads a session of its own: its workers end too


if __name__ == "__main__":
    main()
