"""Saving on several ranks: all succeed, or all raise the same error and nobody waits for ever."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch.distributed.checkpoint.api import CheckpointException

from lit_eve.checkpoints import files
from lit_eve.checkpoints.atomic import explain_failed_write, world_size
from lit_eve.checkpoints.files import CheckpointError, FileRecord, Manifest

_T = TypeVar("_T")


def gather(value: _T) -> list[_T]:
    """The values of all ranks, in order; every rank must come here."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    torch.distributed.all_gather_object(values, value)
    return values


def together(action: Callable[[], None], path: Path) -> None:
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
    messages = [message for message in gather(_explain(failure, path)) if message is not None]
    if messages:
        raise CheckpointError(messages[0]) from failure


def seal(temporary: Path, final: Path, step: int) -> None:
    """Turn a folder that all ranks have written into a checkpoint under its final name.

    Every rank syncs and hashes its share of the files; rank zero renames.

    Raises:
        CheckpointError: on all ranks, if anything went wrong on one.
    """
    rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
    records: dict[str, FileRecord] = {}

    def hash_own_share() -> None:
        names = sorted(str(p.relative_to(temporary)) for p in temporary.rglob("*") if p.is_file())
        for name in names[rank :: world_size()]:
            file = temporary / name
            with file.open("rb+") as stream:
                os.fsync(stream.fileno())
            records[name] = FileRecord(file.stat().st_size, files.sha256_of(file))

    together(hash_own_share, final)
    merged = {name: record for share in gather(records) for name, record in share.items()}

    def rename() -> None:
        if rank == 0:
            files.sync_directory(temporary)
            files.remove(final)
            os.rename(temporary, final)
            manifest = Manifest(step, world_size(), merged)
            files.write_text_atomically(files.manifest_path(final), manifest.to_json())

    together(rename, final)


def _explain(failure: Exception | None, path: Path) -> str | None:
    if failure is None or isinstance(failure, CheckpointError):
        return None if failure is None else str(failure)
    if isinstance(failure, OSError):
        return explain_failed_write(path, failure)
    if isinstance(failure, CheckpointException):  # holds what went wrong on each rank
        for entry in failure.failures.values():
            if isinstance(original := entry[0], OSError):
                return explain_failed_write(path, original)
    return f"checkpoint {path}: {type(failure).__name__}: {failure}"
