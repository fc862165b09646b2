"""Prepare a dataset once: in a process of its own, verified, and under its name only when whole."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from filelock import FileLock

from lit_eve_data.builtin.photos import PhotosOptions
from lit_eve_data.builtin.scenes import ScenesOptions
from lit_eve_data.disk.manifest import NAME, Manifest, read_manifest, write_manifest
from lit_eve_data.preparing.split_writer import CHUNK_BYTES
from lit_eve_data.sources import PhotosSource, ScenesSource, Source, fingerprint

Progress = Callable[[int, int], None]
_RANK_VARIABLES = (
    "RANK",
    "LOCAL_RANK",
    "GLOBAL_RANK",
    "NODE_RANK",
    "WORLD_SIZE",
    "NNODES",
    "DATA_OPTIMIZER_GLOBAL_RANK",
    "DATA_OPTIMIZER_NUM_WORKERS",
)


@dataclass(frozen=True)
class Preparing:
    """How a dataset is prepared."""

    max_rejects: float = 0.0
    """Share of the inputs that may be unusable."""
    workers: int | None = None
    """Processes that make records; None uses the cores there are."""
    append: bool = False
    """Add to a dataset that is there."""
    chunk_bytes: int = CHUNK_BYTES
    """About how large a chunk is."""


def prepare_scenes(options: ScenesOptions, root: Path, progress: Progress | None = None) -> Path:
    """Compose the scenes of `options` under `root`, unless they are there already.

    Args:
        options: what to compose.
        root: directory of all prepared datasets.
        progress: called with scenes written and scenes in all.

    Returns:
        The dataset's directory, `root/scenes-<fingerprint>`.

    Raises:
        RuntimeError: if preparing failed; start again to go on.
        ValueError: if a finished dataset of that name is damaged.
    """
    source = ScenesSource(options)
    return prepare(source, root / f"scenes-{fingerprint(source)}", progress)


def prepare_photos(options: PhotosOptions, root: Path, progress: Progress | None = None) -> Path:
    """Cut the photo crops of `options` under `root`, unless they are there already.

    Args:
        options: what to cut.
        root: directory of all prepared datasets.
        progress: called with crops written and crops in all.

    Returns:
        The dataset's directory, `root/photos-<fingerprint>`.

    Raises:
        RuntimeError: if preparing failed; start again to go on.
        ValueError: if a finished dataset of that name is damaged.
    """
    source = PhotosSource(options)
    return prepare(source, root / f"photos-{fingerprint(source)}", progress)


def prepare(
    source: Source,
    final: Path,
    progress: Progress | None = None,
    options: Preparing = Preparing(),  # frozen
) -> Path:
    """Prepare `source` as the directory `final`, unless it is there already.

    Processes that ask for the same dataset at the same time wait for the first of them. What an
    interrupted one had finished is kept beside `final`, under a name nothing reads, and continued.

    Args:
        source: what to prepare.
        final: the dataset's directory.
        progress: called with inputs dealt with and inputs in all.
        options: how.

    Raises:
        RuntimeError: if preparing failed.
        ValueError: if `final` exists and is no whole dataset, or one of something else and nothing
            is to be appended.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    if _is_there(source, final, options):
        return final
    with FileLock(final.parent / f".{final.name}.lock"):
        if _is_there(source, final, options):  # another process was faster
            return final
        mark = fingerprint(source)
        partial = final.parent / f".{final.name}.{mark}.partial"
        for other in final.parent.glob(f".{final.name}.*.partial"):
            if other != partial:  # of the same name, but made of something else
                shutil.rmtree(other)
        target = final / part_folder(mark) if options.append else final
        if not target.exists():  # a part may be whole, but not in the manifest yet
            partial.mkdir(exist_ok=True)
            _run(_order(source, partial, target, options), progress)
        if options.append:
            known, (part,) = read_manifest(final), read_manifest(target).parts
            write_manifest(final, Manifest((*known.parts, part.moved(target.name))))
    read_manifest(final)
    return final


def part_folder(mark: str) -> str:
    """Where something that is appended goes."""
    return f"part-{mark}"


def _is_there(source: Source, final: Path, options: Preparing) -> bool:
    """Whether nothing is left to do."""
    if not final.exists():
        if options.append:
            raise ValueError(f"there is no dataset {final} to append to: leave out --append.")
        return False
    if read_manifest(final).holds(source.description()):
        return True
    if not options.append:
        raise ValueError(
            f"{final} holds a dataset made of something else, or of files that changed since: give "
            "another --to, or --append to add to it."
        )
    return False


def _order(source: Source, partial: Path, target: Path, options: Preparing) -> dict[str, Any]:
    """What the writing process is told."""
    workers = min(8, _num_cores()) if options.workers is None else options.workers
    return {
        "source": source.description(),
        "partial": str(partial.resolve()),
        "final": str(target.resolve()),
        "options": {
            "workers": workers,
            "max_rejects": options.max_rejects,
            "chunk_bytes": options.chunk_bytes,
        },
    }


def _run(order: dict[str, Any], progress: Progress | None) -> None:
    """Start the writing process, follow it, and end all of it whatever happens here."""
    with tempfile.TemporaryFile("w+") as errors, tempfile.TemporaryDirectory() as scratch:
        process = subprocess.Popen(
            [sys.executable, "-m", "lit_eve_data.preparing.writing"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=_environment(scratch),
            text=True,
            start_new_session=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(order) + "\n")
            process.stdin.flush()
            said = _follow(process.stdout, progress)
            code = process.wait()
        finally:
            _end(process)
        if code == 0 and Path(order["final"], NAME).is_file():
            return
        errors.seek(0)
        said = said or "\n".join(errors.read().strip().splitlines()[-8:])
        raise RuntimeError(
            f"preparing {Path(order['final']).name} failed (exit status {code}). What was finished "
            "is kept and is gone on with when you start again. The process said:\n"
            f"{said or 'nothing: it was killed, perhaps because memory ran out.'}"
        )


def _follow(lines: IO[str], progress: Progress | None) -> str:
    """Pass on what the process says until it closes its output; returns its last words."""
    said = ""
    for line in lines:
        message = json.loads(line) if line.startswith("{") else {}
        if progress is not None and "done" in message:
            progress(message["done"], message["total"])
        said = message.get("error", said)
    return said


def _end(process: subprocess.Popen[str]) -> None:
    """End the process and its workers, which share its session."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # all ended on their own
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()


def _num_cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _environment(scratch: str) -> dict[str, str]:
    """Ours, without ranks, with own scratch folders and this very package on the path."""
    package = str(Path(__file__).parents[2])
    inherited = {k: v for k, v in os.environ.items() if k not in _RANK_VARIABLES}
    paths = [package, *filter(None, [inherited.get("PYTHONPATH")])]
    return {
        **inherited,
        "PYTHONPATH": os.pathsep.join(paths),
        "OMP_NUM_THREADS": "1",
        "TMPDIR": scratch,
        "DATA_OPTIMIZER_CACHE_FOLDER": scratch,
        "DATA_OPTIMIZER_DATA_CACHE_FOLDER": scratch,
    }
