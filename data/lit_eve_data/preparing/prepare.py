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
from pathlib import Path
from typing import IO, Any

from filelock import FileLock

from lit_eve_data.builtin.photos import PhotosOptions
from lit_eve_data.builtin.scenes import ScenesOptions
from lit_eve_data.disk.manifest import NAME, read_manifest
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
    max_rejects: float = 0.0,
    workers: int | None = None,
) -> Path:
    """Prepare `source` as the directory `final`, unless it is there already.

    Processes that ask for the same dataset at the same time wait for the first of them. What an
    interrupted one had finished is kept beside `final`, under a name nothing reads, and continued.

    Args:
        source: what to prepare.
        final: the dataset's directory.
        progress: called with inputs dealt with and inputs in all.
        max_rejects: share of the inputs that may be unusable.
        workers: processes that make records; None uses the cores there are.

    Raises:
        RuntimeError: if preparing failed.
        ValueError: if `final` exists and is no whole dataset.
    """
    if (final / NAME).is_file():
        read_manifest(final)
        return final
    final.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(final.parent / f".{final.name}.lock"):
        if final.exists():  # another process was faster, or something else lies there
            read_manifest(final)
            return final
        partial = final.parent / f".{final.name}.{fingerprint(source)}.partial"
        for other in final.parent.glob(f".{final.name}.*.partial"):
            if other != partial:  # of the same name, but made of something else
                shutil.rmtree(other)
        partial.mkdir(exist_ok=True)
        order = {
            "source": source.description(),
            "partial": str(partial.resolve()),
            "final": str(final.resolve()),
            "options": {
                "workers": min(8, _num_cores()) if workers is None else workers,
                "max_rejects": max_rejects,
            },
        }
        _run(order, progress)
    read_manifest(final)
    return final


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
