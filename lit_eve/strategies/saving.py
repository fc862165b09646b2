"""Saving on several ranks: all succeed, or all raise the same error and nobody waits for ever."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch.distributed import ProcessGroup
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict_saver import save

from lit_eve.checkpoints import files
from lit_eve.checkpoints.atomic import explain_failed_write, on_host, world_size
from lit_eve.checkpoints.files import CheckpointError, FileRecord, Manifest
from lit_eve.checkpoints.shards import REST_FILE

_T = TypeVar("_T")
Group = ProcessGroup | None
"""None is all ranks, over what they train with."""


def gather(value: _T, group: Group = None) -> list[_T]:
    """The values of all ranks, in order; every rank must come here."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    torch.distributed.all_gather_object(values, value, group=group)
    return values


def together(action: Callable[[], None], path: Path, group: Group = None) -> None:
    """Do something to a checkpoint on every rank; if it fails on one, raise on all.

    Whatever fails: a rank that raised alone would leave the others waiting for it.

    Raises:
        CheckpointError: the first rank's.
    """
    failure: Exception | None = None
    try:
        action()
    except Exception as error:
        failure = error
    explained = gather(_explain(failure, path), group)
    messages = [message for message in explained if message is not None]
    if messages:
        raise CheckpointError(messages[0]) from failure


def finish_together(plugin: object) -> None:
    """Wait for what a checkpoint plugin writes in the background, on rank zero.

    Raises:
        CheckpointError: on all ranks, if it could not be written.
    """
    finish = getattr(plugin, "finish", None)
    if finish is not None:
        together(finish, Path("in the background"))


class ShardWriter:
    """Writes folders of shards: beside, hashed by all ranks, renamed by rank zero.

    Args:
        background: copy the shards at once and write them in a thread, through a process group of
            its own. A failure is raised by the next `write` or by `finish`, on all ranks.
    """

    shards_are_copies = False
    """Whether the shards that come in are nobody else's, as they are when taken off a device."""

    def __init__(self, background: bool) -> None:
        self._executor = ThreadPoolExecutor(1, "checkpoint") if background else None
        self._group: Group = None
        self._pending: Future[None] | None = None

    def write(self, checkpoint: dict[str, Any], final: Path, temporary: Path) -> None:
        """Write a checkpoint; `temporary` is the same on all ranks.

        Raises:
            CheckpointError: if this one, or the one before in the background, failed.
        """
        self.finish()
        if self._executor is None:
            _write(checkpoint, final, temporary, None)
            return
        if self._group is None and world_size() > 1:
            self._group = torch.distributed.new_group(backend="gloo")
        copied = on_host(checkpoint, shards=not self.shards_are_copies)
        self._pending = self._executor.submit(_write, copied, final, temporary, self._group)

    def finish(self) -> None:
        """Wait for what is being written.

        Raises:
            CheckpointError: if it failed.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()


def _write(checkpoint: dict[str, Any], final: Path, temporary: Path, group: Group) -> None:
    rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
    rest = dict(checkpoint)
    state = {"state_dict": rest.pop("state_dict")}
    state |= {f"optimizer_{n}": entry for n, entry in enumerate(rest.pop("optimizer_states", []))}

    def write_shards() -> None:
        temporary.mkdir(parents=True, exist_ok=True)
        save(state, checkpoint_id=temporary, process_group=group)
        if rank == 0:
            torch.save(rest, temporary / REST_FILE)

    try:
        together(write_shards, final, group)
        _seal(temporary, final, int(checkpoint["global_step"]), rank, group)
    except CheckpointError:
        if rank == 0:
            shutil.rmtree(temporary, ignore_errors=True)
        raise


def _seal(temporary: Path, final: Path, step: int, rank: int, group: Group) -> None:
    """Every rank syncs and hashes its share of the files; rank zero renames."""
    records: dict[str, FileRecord] = {}

    def hash_own_share() -> None:
        names = sorted(str(p.relative_to(temporary)) for p in temporary.rglob("*") if p.is_file())
        for name in names[rank :: world_size()]:
            file = temporary / name
            with file.open("rb+") as stream:
                os.fsync(stream.fileno())
            records[name] = FileRecord(file.stat().st_size, files.sha256_of(file))

    together(hash_own_share, final, group)
    merged = {name: record for share in gather(records, group) for name, record in share.items()}

    def rename() -> None:
        if rank == 0:
            files.sync_directory(temporary)
            files.remove(final)
            os.rename(temporary, final)
            manifest = Manifest(step, world_size(), merged)
            files.write_text_atomically(files.manifest_path(final), manifest.to_json())

    together(rename, final, group)


def _explain(failure: Exception | None, path: Path) -> str | None:
    if failure is None or isinstance(failure, CheckpointError):
        return None if failure is None else str(failure)
    if isinstance(failure, OSError):
        return explain_failed_write(path, failure)
    if isinstance(failure, CheckpointException):  # holds what went wrong on each rank
        original = next(iter(failure.failures.values()))[0]
        short = original if isinstance(original, OSError) else OSError(str(original).split("\n")[0])
        return explain_failed_write(path, short)
    return f"checkpoint {path}: {type(failure).__name__}: {failure}"
