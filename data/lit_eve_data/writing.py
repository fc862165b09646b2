"""The process that prepares a dataset: run as `python -m lit_eve_data.writing`, by `prepare`.

It stands alone, so that nothing LitData does to a process (start method, signal handlers, seeds)
reaches the training. Workers make the records, this process writes them in order, re-reads all of
them, writes the manifest and only then gives the directory its name. Progress goes to standard
output, one JSON object a line. It ends when its standard input closes, that is, with its parent.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from lit_eve_data.manifest import (
    INDEX,
    FileStamp,
    Manifest,
    SplitManifest,
    check_index,
    hash_file,
    write_manifest,
)
from lit_eve_data.records import decode, decode_header
from lit_eve_data.sidecar import NAME as SIDECAR
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
    write_dataset(source, Path(order["partial"]), order["workers"])
    os.replace(order["partial"], order["final"])


def write_dataset(source: Source, directory: Path, workers: int) -> None:
    """Write, verify and stamp all splits of a source into `directory`."""
    splits = {name: count for name, count in source.splits().items() if count}
    total, done = sum(splits.values()), 0
    stamped = {}
    with ProcessPoolExecutor(
        workers, get_context("spawn"), initializer=_begin, initargs=(source.description(),)
    ) as pool:
        blobs = _records(pool, splits, workers)
        for name, count in splits.items():
            stamped[name] = _write_split(directory, name, count, blobs, done, total)
            done += count
    write_manifest(directory, Manifest(source.description(), stamped))
    for path in (*directory.rglob("*"), directory):
        _to_disk(path)


def _write_split(
    directory: Path, name: str, count: int, blobs: Iterator[bytes], done: int, total: int
) -> SplitManifest:
    """Write the next `count` records as the chunks of a split."""
    from litdata.streaming.writer import BinaryWriter  # type: ignore[import-untyped]  # seconds

    folder = directory / name
    writer = BinaryWriter(str(folder), chunk_bytes=CHUNK_BYTES)
    rows = SidecarRows()
    checksums = bytearray()
    for number in range(count):
        blob = next(blobs)
        writer.add_item(number, blob)
        rows.add(decode_header(blob))
        checksums += blob[4:8]
        if number % _TASK == 0:
            _tell(done=done + number, total=total)
    writer.done()
    writer.merge(1)
    index = json.loads((folder / INDEX).read_text())
    rows.write(folder, [chunk["chunk_size"] for chunk in index["chunks"]])
    files = {f"{name}/{path.name}": hash_file(path) for path in sorted(folder.iterdir())}
    _verify(folder, bytes(checksums), files)
    return SplitManifest(count, rows.counts(), files)


def _verify(folder: Path, checksums: bytes, files: dict[str, FileStamp]) -> None:
    """Re-read every record from the finished chunks and compare with what was handed in."""
    from litdata import StreamingDataset  # type: ignore[import-untyped]

    names = {path.rsplit("/", 1)[-1] for path in files}
    check_index(folder / INDEX, json.loads((folder / INDEX).read_text()), names - {SIDECAR})
    records = StreamingDataset(str(folder), shuffle=False, drop_last=False, batch_decode=0)
    if 4 * len(records) != len(checksums):
        raise RuntimeError(f"{folder} holds {len(records)} records, {len(checksums) // 4} written")
    for number in range(len(records)):
        blob = bytes(records[number])
        if blob[4:8] != checksums[4 * number : 4 * number + 4]:
            raise RuntimeError(f"{folder}: record {number} is not the one that was written")
        decode(blob)


def _records(pool: ProcessPoolExecutor, splits: dict[str, int], workers: int) -> Iterator[bytes]:
    """All records of all splits in order; workers run ahead of the writer, but not too far."""
    tasks = (
        (name, start, min(start + _TASK, count))
        for name, count in splits.items()
        for start in range(0, count, _TASK)
    )
    waiting: deque[Future[list[bytes]]] = deque()
    for task in tasks:
        waiting.append(pool.submit(_make, *task))
        if len(waiting) >= _AHEAD * workers:
            yield from waiting.popleft().result()
    while waiting:
        yield from waiting.popleft().result()


def _begin(description: dict[str, Any]) -> None:
    """Tell a worker what it works on."""
    global _source
    _source = source_from(description)


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


def _tell(**message: int) -> None:
    print(json.dumps(message), flush=True)


def _end_with_parent() -> None:
    """Wait for the parent to go away; then there is nobody to prepare for."""
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    main()
