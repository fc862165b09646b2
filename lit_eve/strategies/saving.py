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

    Raises:
        CheckpointError: the first rank's.
    """
    message = None
    try:
        action()
    except CheckpointError as error:
        message = str(error)
    except (OSError, CheckpointException) as error:
        message = explain_failed_write(path, _cause(error))
    failures = [failure for failure in gather(message) if failure is not None]
    if failures:
        raise CheckpointError(failures[0])


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


def _cause(error: OSError | CheckpointException) -> OSError:
    if isinstance(error, OSError):
        return error
    for failure in error.failures.values():
        original = failure[0] if isinstance(failure, tuple) else failure
        if isinstance(original, OSError):
            return original
    return OSError(str(error))
