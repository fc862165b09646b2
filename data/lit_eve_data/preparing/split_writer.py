"""Writes one split of a dataset chunk by chunk, and goes on with a split that was interrupted.

Every chunk that is finished is a checkpoint: the chunk, the facts of its samples, the rejects up to
it and the position in the inputs are on disk before `progress.json` names them. Whatever was
written behind that is cut off when the split is opened again.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lit_eve_data.disk.manifest import INDEX, FileStamp, SplitManifest, check_index, hash_file
from lit_eve_data.disk.records import checksum, decode_header, is_intact
from lit_eve_data.disk.sidecar import FACT, FACTS, SIZE, SIZES, write_sidecar
from lit_eve_data.preparing.chunks import litdata_config, write_chunk

CHUNK_BYTES = 64_000_000
"""About how large a chunk is, if nobody says: memory for four of them, few files."""
PROGRESS = "progress.json"
DONE = "split.json"
REJECTS = "rejects.jsonl"
_PASSING = (PROGRESS, DONE, FACTS, SIZES)  # not part of the finished dataset


@dataclass(frozen=True)
class Reject:
    """An input that could not be used."""

    name: str
    reason: str
    message: str


@dataclass
class _Progress:
    """What is safely on disk."""

    position: int = 0
    """Inputs that are dealt with, rejected ones included."""
    samples: int = 0
    images: int = 0
    chunks: list[dict[str, Any]] = field(default_factory=list)
    """As LitData's index lists them."""
    config: dict[str, Any] = field(default_factory=dict)
    """LitData's, the same for every chunk."""
    stamps: dict[str, dict[str, Any]] = field(default_factory=dict)
    kinds: list[str] = field(default_factory=list)
    rejects: dict[str, int] = field(default_factory=dict)
    """By reason."""
    rejects_bytes: int = 0


class SplitWriter:
    """Writes the records of one split, then proves that they can be read.

    Args:
        folder: of the split; one that was interrupted is continued.
        chunk_bytes: about how large a chunk is.
    """

    def __init__(self, folder: Path, chunk_bytes: int) -> None:
        self.folder = folder
        self._chunk_bytes = chunk_bytes
        self._blobs: list[bytes] = []
        self._rejected: list[Reject] = []
        self._size = 0
        folder.mkdir(parents=True, exist_ok=True)
        self.last_reject: Reject | None = None
        self._done: SplitManifest | None = None
        self._progress = self._recover()
        self.position = self._progress.position
        """Inputs dealt with so far."""

    @property
    def rejects(self) -> Mapping[str, int]:
        """Inputs rejected so far, by reason."""
        if self._done is not None:
            return self._done.rejects
        return Counter(self._progress.rejects) + Counter(r.reason for r in self._rejected)

    def add(self, result: bytes | Reject) -> None:
        """Take what came of the next input."""
        self.position += 1
        if isinstance(result, Reject):
            self._rejected.append(result)
            self.last_reject = result
            return
        self._blobs.append(result)
        self._size += len(result)
        if self._size >= self._chunk_bytes:
            self.checkpoint()

    def checkpoint(self) -> None:
        """Put everything taken so far on disk, so that it never has to be made again."""
        done = self._progress
        if self._blobs:
            self._write_chunk()
        if self._rejected:
            with (self.folder / REJECTS).open("a") as file:
                file.writelines(json.dumps(asdict(reject)) + "\n" for reject in self._rejected)
            done.rejects = dict(self.rejects)
            done.rejects_bytes = (self.folder / REJECTS).stat().st_size
        self._blobs, self._rejected, self._size = [], [], 0
        done.position = self.position
        for name in (*(chunk["filename"] for chunk in done.chunks[-1:]), FACTS, SIZES, REJECTS):
            if (self.folder / name).exists():
                to_disk(self.folder / name)
        _replace(self.folder / PROGRESS, asdict(done))

    def close(self) -> SplitManifest:
        """Finish the split, re-read everything and stamp its files.

        Raises:
            ValueError: if not a single input could be used.
        """
        if self._done is not None:
            return self._done
        self.checkpoint()
        done = self._progress
        if not done.chunks:
            raise ValueError(f"no input of {self.folder.name} could be used: {done.rejects}.")
        index = {"chunks": done.chunks, "config": done.config}
        (self.folder / INDEX).write_text(json.dumps(index, sort_keys=True))
        check_index(self.folder / INDEX, index, {chunk["filename"] for chunk in done.chunks})
        self._reread()
        counts = write_sidecar(self.folder, done.kinds, [c["chunk_size"] for c in done.chunks])
        split = SplitManifest(done.samples, counts, dict(done.rejects), self._stamps())
        _replace(self.folder / DONE, {"position": self.position, "split": asdict(split)})
        return split

    def clean(self) -> None:
        """Remove what was needed for going on: the dataset's manifest says it all now."""
        for name in _PASSING:
            (self.folder / name).unlink(missing_ok=True)

    def _recover(self) -> _Progress:
        """What is on disk already; whatever lies behind it is cut off."""
        if (self.folder / DONE).is_file():
            content = json.loads((self.folder / DONE).read_text())
            self._done = SplitManifest.from_json(content["split"])
            return _Progress(position=content["position"])
        path = self.folder / PROGRESS
        done = _Progress(**json.loads(path.read_text())) if path.is_file() else _Progress()
        sizes = {
            FACTS: done.samples * FACT.itemsize,
            SIZES: done.images * SIZE.itemsize * 2,
            REJECTS: done.rejects_bytes,
        }
        listed = {chunk["filename"] for chunk in done.chunks}
        for file in self.folder.iterdir():
            if file.name in sizes:
                os.truncate(file, sizes[file.name])
            elif file.name not in listed | {PROGRESS}:
                file.unlink()
        return done

    def _write_chunk(self) -> None:
        """The records taken since the last chunk, as one LitData chunk with the facts of each."""
        done = self._progress
        done.config = {**litdata_config(), "chunk_bytes": self._chunk_bytes}
        name = f"chunk-0-{len(done.chunks)}.bin"
        stamp = write_chunk(self.folder / name, self._blobs)
        about = {"chunk_bytes": stamp.bytes, "chunk_size": len(self._blobs), "filename": name}
        done.chunks.append({**about, "dim": None})
        done.stamps[name] = asdict(stamp)
        self._write_facts()

    def _write_facts(self) -> None:
        done = self._progress
        facts, sizes = [], []
        for blob in self._blobs:
            header = decode_header(blob)
            if header["kind"] not in done.kinds:
                done.kinds.append(header["kind"])
            characters = sum(len(turn["content"]) for turn in header["turns"])
            kind = done.kinds.index(header["kind"])
            facts.append((kind, len(header["images"]), characters, checksum(blob)))
            sizes += [(image[0], image[1]) for image in header["images"]]
        for name, rows in ((FACTS, np.array(facts, FACT)), (SIZES, np.array(sizes, SIZE))):
            with (self.folder / name).open("ab") as file:
                file.write(rows.tobytes())
        done.samples += len(facts)
        done.images += len(sizes)

    def _reread(self) -> None:
        """Compare every record of the finished chunks with what was handed in."""
        from litdata import StreamingDataset  # type: ignore[import-untyped]

        written = np.fromfile(self.folder / FACTS, FACT)["checksum"].tolist()
        chunks = StreamingDataset(str(self.folder), shuffle=False, drop_last=False, batch_decode=0)
        if len(chunks) != len(written):
            raise RuntimeError(f"{len(chunks)} records of {len(written)} were written")
        for number, expected in enumerate(written):
            if not is_intact(chunks[number], expected):
                raise RuntimeError(f"record {number} of {self.folder} is not the one handed in")

    def _stamps(self) -> dict[str, FileStamp]:
        """Of every file of the split; chunks have theirs from when they were written."""
        known = {name: FileStamp(**stamp) for name, stamp in self._progress.stamps.items()}
        return {
            f"{self.folder.name}/{path.name}": known.get(path.name) or hash_file(path)
            for path in sorted(self.folder.iterdir())
            if path.name not in _PASSING
        }


def to_disk(path: Path) -> None:
    """Make sure a crash of the machine cannot leave an empty file behind a good name."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:  # some file systems cannot sync directories
        if path.is_file():
            raise
    finally:
        os.close(descriptor)


def _replace(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file so that there is always a whole one."""
    partial = path.with_name(f"{path.name}.tmp")
    partial.write_text(json.dumps(content))
    partial.replace(path)
