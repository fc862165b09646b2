"""How Lightning writes and reads one-file checkpoints here.

Lightning's own writer serialises into memory, stages in `$TMPDIR` and moves: where that is another
file system, a kill during the move destroys the previous file too (Lightning #21253). This one
streams into the directory it belongs to, forces it to the disk, reads it back and renames.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import shutil
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import torch
from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO
from torch import Tensor
from torch.distributed.tensor import DTensor

from lit_eve.checkpoints import files
from lit_eve.checkpoints.files import CheckpointError, FileRecord, Manifest
from lit_eve.checkpoints.shards import read_shards

log = logging.getLogger(__name__)


class AtomicCheckpointIO(CheckpointIO):
    """One file per checkpoint: beside its final name, checksummed, verified, then renamed.

    Args:
        background: copy the tensors to host memory at once and write them in a thread, so that a
            step waits for the copy only. It costs host memory for one copy. An error of the thread
            is raised by the next `save_checkpoint` or by `finish`.
    """

    def __init__(self, background: bool = False) -> None:
        self._executor = ThreadPoolExecutor(1, "checkpoint") if background else None
        self._pending: Future[None] | None = None

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Write a checkpoint, or leave everything as it was.

        Raises:
            CheckpointError: if it could not be written; what was there before is untouched.
            ValueError: for `storage_options`, and for the name `last`.
        """
        if storage_options is not None:
            raise ValueError(
                "storage_options would be ignored: checkpoints are written to a local or mounted "
                "directory. Leave them out."
            )
        target = checked_name(path)
        self.finish()
        if self._executor is None:
            write_checkpoint(checkpoint, target)
        else:
            self._pending = self._executor.submit(write_checkpoint, on_host(checkpoint), target)

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Any | None = None,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Read a checkpoint whose every byte is what was written.

        Raises:
            CheckpointError: if it is not.
            ValueError: for `weights_only=False`, which would run code found in the file.
        """
        if weights_only is False:
            raise ValueError(
                "weights_only=False would run code found in the checkpoint. Checkpoints written "
                "here hold tensors and plain values only and load without it."
            )
        self.finish()
        return load_verified(Path(path), map_location)

    def remove_checkpoint(self, path: str | Path) -> None:
        """Delete a checkpoint and its manifest."""
        self.finish()
        files.remove(Path(path))

    def finish(self) -> None:
        """Wait for the checkpoint that is being written, if any.

        Raises:
            CheckpointError: if it could not be written.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def teardown(self) -> None:
        """Wait for the last write."""
        self.finish()


def checked_name(path: str | Path) -> Path:
    """The path, unless its name is `last`.

    Raises:
        ValueError: if it is: a name that is overwritten has a moment in which nothing is whole.
    """
    path = Path(path)
    if path.stem == "last":
        raise ValueError(
            f"a checkpoint may not be called {path.name}: overwriting it would leave a moment with "
            f"no good one. Name it by its step, as in {files.checkpoint_name(200)}."
        )
    return path


def load_verified(path: Path, map_location: Any | None = None) -> dict[str, Any]:
    """Verify, then load to the host (or `map_location`); a folder of shards as one checkpoint.

    Raises:
        CheckpointError: if the checkpoint is not whole.
    """
    try:
        files.verify(path)
    except CheckpointError as error:
        raise CheckpointError(
            f"checkpoint {path} cannot be loaded: {error}. Use the one before it, or let "
            "`lit-eve resume` choose."
        ) from error
    if path.is_dir():
        return read_shards(path)
    location = "cpu" if map_location is None else map_location
    loaded: dict[str, Any] = torch.load(path, map_location=location, weights_only=True)
    return loaded


def write_checkpoint(checkpoint: dict[str, Any], path: Path) -> None:
    """Stream to a temporary file in the same directory, sync, verify, rename.

    Raises:
        CheckpointError: if that fails; the temporary file is gone and nothing else was touched.
    """
    temporary = files.temporary_beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        record = _stream(checkpoint, temporary)
        if files.sha256_of(temporary) != record.sha256:
            raise OSError(errno.EIO, "the disk gave back other bytes than were written")
        manifest = Manifest(int(checkpoint["global_step"]), world_size(), {".": record})
        os.replace(temporary, path)
        files.write_text_atomically(files.manifest_path(path), manifest.to_json())
    except OSError as error:
        raise CheckpointError(explain_failed_write(path, error)) from error
    finally:
        files.discard(temporary)


def explain_failed_write(path: Path, error: OSError) -> str:
    """What happened, what is still there, what to do."""
    folder = path.parent
    older = files.newest(folder, report=lambda message: None) if folder.is_dir() else None
    kept = f"{older.name} is whole and stays" if older else "there is no older one"
    advice = "Make the folder writable"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        free = shutil.disk_usage(folder).free // 2**20
        advice = f"{free} MiB are free: make room"
    return (
        f"checkpoint {path} could not be written ({error.strerror or error}); {kept}. "
        f"{advice}, then `lit-eve resume` continues from there."
    )


def world_size() -> int:
    """Number of processes that train together."""
    distributed = torch.distributed
    return distributed.get_world_size() if distributed.is_initialized() else 1


class _HashingWriter:
    """A binary stream that hashes what passes.

    The first error is kept and later writes are dropped: the C++ writer behind `torch.save` cannot
    be unwound from a callback that raises.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._digest = hashlib.sha256()
        self.size = 0
        self.error: OSError | None = None

    def write(self, block: bytes) -> int:
        if self.error is None:
            try:
                self._stream.write(block)
                self._digest.update(block)
                self.size += memoryview(block).nbytes
            except OSError as error:
                self.error = error
        return memoryview(block).nbytes

    def flush(self) -> None:
        """Nothing is held back here."""

    def record(self) -> FileRecord:
        return FileRecord(self.size, self._digest.hexdigest())


def _stream(checkpoint: dict[str, Any], file: Path) -> FileRecord:
    with file.open("wb") as stream:
        writer = _HashingWriter(stream)
        torch.save(checkpoint, writer)  # type: ignore[arg-type]  # needs write and flush only
        if writer.error is not None:
            raise writer.error
        stream.flush()
        os.fsync(stream.fileno())
    return writer.record()


def on_host(value: Any, copies: dict[Any, Tensor] | None = None, shards: bool = True) -> Any:
    """A copy that training cannot change: tensors on the host, shared ones still shared.

    Args:
        value: nested mappings, lists and tuples of anything.
        copies: tensors that were copied already.
        shards: copy shards too; not needed where Lightning has taken them off a device.
    """
    copies = {} if copies is None else copies
    if isinstance(value, DTensor):
        return value.detach().clone() if shards else value
    if isinstance(value, Tensor):
        key = (value.device, value.data_ptr(), value.dtype, value.shape, value.stride())
        if value.numel() == 0 or key not in copies:
            copies[key] = value.detach().to("cpu", copy=True)
        return copies[key]
    if isinstance(value, Mapping):
        return {name: on_host(item, copies, shards) for name, item in value.items()}
    if isinstance(value, tuple) and not hasattr(value, "_fields"):
        return tuple(on_host(item, copies, shards) for item in value)
    if isinstance(value, list):
        return [on_host(item, copies, shards) for item in value]
    return value
