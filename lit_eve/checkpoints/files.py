"""What a checkpoint is on disk, and how to know that it is whole.

    step-00000200.ckpt        one file, or a folder of shards (one per rank)
    step-00000200.ckpt.json   its manifest: step, and size and SHA-256 of every file

The manifest is renamed into place last, so a checkpoint without one was never finished. Nothing is
ever overwritten while it is the only good one, and no name (`last`) stands for a moving target:
`newest` decides by the steps in the manifests.

Imports no torch: looking for a checkpoint is instant.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

Report = Callable[[str], None]
"""Takes one sentence for the user."""

MANIFEST_SUFFIX = ".json"
BEST_FILE = "best.json"
_BLOCK = 1 << 22  # 4 MiB: hashing runs at memory speed and needs no more


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be trusted, or could not be written."""


@dataclass(frozen=True)
class FileRecord:
    """One file of a checkpoint."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a finished checkpoint consists of."""

    step: int
    world_size: int
    files: dict[str, FileRecord]
    """By path inside the checkpoint's folder; one entry called `.` if it is a single file."""

    def to_json(self) -> str:
        """As it is written."""
        return json.dumps(asdict(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """As it is read.

        Raises:
            CheckpointError: if it is no manifest.
        """
        try:
            raw: dict[str, Any] = json.loads(text)
            files = {name: FileRecord(**record) for name, record in raw["files"].items()}
            return cls(step=int(raw["step"]), world_size=int(raw["world_size"]), files=files)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"its manifest cannot be read ({error})") from error


def checkpoint_name(step: int) -> str:
    """The name of the checkpoint after `step` optimizer steps."""
    return f"step-{step:08d}.ckpt"


def manifest_path(checkpoint: Path) -> Path:
    """Where the manifest of a checkpoint lies."""
    return checkpoint.with_name(checkpoint.name + MANIFEST_SUFFIX)


def read_manifest(checkpoint: Path) -> Manifest:
    """The manifest of a checkpoint.

    Raises:
        CheckpointError: if there is none, so the checkpoint was never finished, or it is broken.
    """
    try:
        return Manifest.from_json(manifest_path(checkpoint).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError("it was never finished: it has no manifest") from error


def sha256_of(file: Path) -> str:
    """SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


_verified: set[tuple[str, int, int, int]] = set()
"""Files whose checksum this process has already confirmed: path, inode, size, time of change."""


def verify(checkpoint: Path) -> Manifest:
    """Read every byte of a checkpoint and compare it with the manifest.

    A file that this process has confirmed and nobody has touched since is not read twice.

    Returns:
        The manifest.

    Raises:
        CheckpointError: if the checkpoint is unfinished, truncated or changed, saying which.
    """
    manifest = read_manifest(checkpoint)
    for name, record in manifest.files.items():
        file = checkpoint if name == "." else checkpoint / name
        shown = checkpoint.name if name == "." else f"{checkpoint.name}/{name}"
        key = _key(checkpoint, name, record)
        if key in _verified:
            continue
        try:
            actual = sha256_of(file)
        except OSError as error:
            raise CheckpointError(f"{shown} cannot be read ({error.strerror or error})") from error
        if actual != record.sha256:
            raise CheckpointError(f"{shown} has changed since it was written (its SHA-256 differs)")
        _verified.add(key)
    return manifest


def trust(checkpoint: Path) -> None:
    """Take another process's word that every byte is right; only sizes are compared here.

    Reading it does not hash it again, unless somebody touches it.

    Raises:
        CheckpointError: if a file is missing or has another size.
    """
    for name, record in read_manifest(checkpoint).files.items():
        _verified.add(_key(checkpoint, name, record))


def _key(checkpoint: Path, name: str, record: FileRecord) -> tuple[str, int, int, int]:
    """What `_verified` remembers of a file, whose size is right."""
    file = checkpoint if name == "." else checkpoint / name
    shown = checkpoint.name if name == "." else f"{checkpoint.name}/{name}"
    try:
        status = file.stat()
    except OSError as error:
        raise CheckpointError(f"{shown} is missing") from error
    if status.st_size != record.size:
        raise CheckpointError(f"{shown} is {status.st_size} bytes long instead of {record.size}")
    return (str(file.absolute()), status.st_ino, status.st_size, status.st_mtime_ns)


def complete(directory: Path, report: Report = log.warning) -> Iterator[tuple[int, Path]]:
    """The whole checkpoints of a directory, newest first, verified as they are asked for.

    Whatever is not whole is reported and left where it is.
    """
    candidates: list[tuple[int, Path]] = []
    for path in directory.glob("*.ckpt"):
        if path.name.startswith("."):
            continue
        try:
            candidates.append((read_manifest(path).step, path))
        except CheckpointError as error:
            report(f"checkpoint {path} is not used: {error}.")
    for step, path in sorted(candidates, reverse=True):
        try:
            verify(path)
        except CheckpointError as error:
            report(f"checkpoint {path} is not used: {error}. Looking for the one before it.")
        else:
            yield step, path


def newest(directory: Path, report: Report = log.warning) -> Path | None:
    """The newest whole checkpoint of a directory, by the step in its manifest.

    Args:
        directory: where to look; it need not exist.
        report: told about every checkpoint that is passed over, and why.

    Returns:
        Its path, every byte verified, or None if there is none.
    """
    return next((path for _, path in complete(directory, report)), None)


def remove(checkpoint: Path) -> None:
    """Delete a checkpoint; its manifest first, so that it is never half a good one."""
    manifest_path(checkpoint).unlink(missing_ok=True)
    if checkpoint.is_dir():
        shutil.rmtree(checkpoint, ignore_errors=True)
    else:
        checkpoint.unlink(missing_ok=True)


def prune(directory: Path, keep: int, protected: Path | None = None) -> list[Path]:
    """Delete old checkpoints once `keep` newer ones are whole.

    Args:
        directory: where they lie.
        keep: how many whole ones stay, at least 1.
        protected: one more that stays, whatever its age.

    Returns:
        What was deleted.
    """
    kept = [path for _, path in islice(complete(directory, report=lambda message: None), keep)]
    if len(kept) < keep:
        return []
    oldest_kept = read_manifest(kept[-1]).step
    deleted = []
    for path in directory.glob("*.ckpt"):
        if path in kept or path == protected or path.name.startswith("."):
            continue
        try:
            old = read_manifest(path).step < oldest_kept
        except CheckpointError:
            old = path.name < checkpoint_name(oldest_kept)
        if old:
            remove(path)
            deleted.append(path)
    return deleted


def remove_leftovers(directory: Path) -> None:
    """Delete what a killed save left behind: temporary files and folders, never a checkpoint."""
    for path in directory.glob(".*.tmp-*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def temporary_beside(path: Path) -> Path:
    """A name in the same directory, so that renaming never copies."""
    return path.with_name(f".{path.name}.tmp-{os.getpid()}")


def discard(file: Path) -> None:
    """Delete a file if it is there and can be deleted; what went wrong before matters more."""
    with contextlib.suppress(OSError):
        file.unlink()


def write_text_atomically(path: Path, text: str) -> None:
    """Write beside the final name, force it to the disk, rename."""
    temporary = temporary_beside(path)
    try:
        with temporary.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    finally:
        discard(temporary)
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Force the names in a directory to the disk, where the system can do that."""
    if os.name == "nt":
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@dataclass(frozen=True)
class Best:
    """Which checkpoint scored best, and how."""

    checkpoint: str
    metric: str
    value: float


def read_best(directory: Path) -> Best | None:
    """The best checkpoint on record, or None."""
    try:
        return Best(**json.loads((directory / BEST_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def write_best(directory: Path, best: Best) -> None:
    """Put the best checkpoint on record."""
    write_text_atomically(directory / BEST_FILE, json.dumps(asdict(best)) + "\n")
