"""Which runs are alive: who runs them, since when, and what to do about those that just stopped."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path
from typing import Any

import psutil

from lit_eve.tracking.spool import EVENTS_FILE, Spool, Status, read_events

PROCESS_FILE = "process.json"
HEARTBEAT_FILE = "heartbeat"
SILENT_SECONDS = 600.0
"""A run of another machine that has not shown life for so long is taken for dead."""

GRACE_SECONDS = 60.0
"""A run whose process is not known yet may just be starting."""


def tracking_folder(run_directory: Path) -> Path:
    """Where the run's own spool lies."""
    return Path(run_directory) / "tracking"


def spool_folders(run_directory: Path) -> list[Path]:
    """The folders of all spools of a run: its own first, then its stages' in the order they began.

    A stage's folder is `<run>/<stage>/tracking`.
    """
    stages = [file.parent for file in Path(run_directory).glob(f"*/tracking/{EVENTS_FILE}")]
    own = tracking_folder(run_directory)
    return [own, *sorted(stages, key=lambda folder: (_began(folder), folder))]


def last_status(spool_folder: Path) -> str | None:
    """The status that a spool last recorded, None if it holds none."""
    status = None
    path = Path(spool_folder) / EVENTS_FILE
    if not path.exists():
        return None
    with path.open("rb") as file:
        for line in file:
            if b'"k":"status"' in line and line.endswith(b"\n"):
                status = str(json.loads(line)["v"])
    return status


def claim(run_directory: Path) -> None:
    """Record that this process runs the run."""
    folder = tracking_folder(run_directory)
    folder.mkdir(parents=True, exist_ok=True)
    mine = {
        "pid": os.getpid(),
        "created": psutil.Process().create_time(),
        "host": socket.gethostname(),
    }
    write_atomically(folder / PROCESS_FILE, json.dumps(mine))


def owner(run_directory: Path) -> int | None:
    """The process that last claimed the run, None if none did."""
    claimed = _claimed(run_directory)
    return claimed["pid"] if claimed else None


def beat(run_directory: Path) -> None:
    """Show life, for readers on other machines; also of a run that has recorded nothing yet."""
    folder = tracking_folder(run_directory)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / HEARTBEAT_FILE).touch()


def created_at(pid: int) -> float | None:
    """When the process was started, None if there is none."""
    try:
        return float(psutil.Process(pid).create_time())
    except psutil.NoSuchProcess:
        return None


def process_alive(pid: int, created: float | None = None) -> bool:
    """Whether the process runs; a later process that was given the same number does not count."""
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        return created is None or abs(process.create_time() - created) < 1.0
    except psutil.NoSuchProcess:
        return False


def alive(run_directory: Path) -> bool:
    """Whether somebody is still running the run.

    On this machine its process is asked; of another machine's run the last sign of life counts.
    """
    claimed = _claimed(run_directory)
    if claimed is None:
        return time.time() - last_sign_of_life(run_directory) < GRACE_SECONDS
    if claimed["host"] == socket.gethostname():
        return process_alive(claimed["pid"], claimed["created"])
    return time.time() - last_sign_of_life(run_directory) < SILENT_SECONDS


def last_sign_of_life(run_directory: Path) -> float:
    """When the run last wrote anything, in seconds since 1970; 0 if it never did."""
    files = [tracking_folder(run_directory) / HEARTBEAT_FILE]
    files += [folder / EVENTS_FILE for folder in spool_folders(run_directory)]
    return max((file.stat().st_mtime for file in files if file.exists()), default=0.0)


def mark_crashed(runs_root: Path) -> list[Path]:
    """Record the end of runs that say RUNNING although nobody runs them.

    Args:
        runs_root: the folder of `<experiment>/<run id>/`.

    Returns:
        The run directories that were marked now: status FAILED, tag `lit_eve.state` "killed", at
        the time of their last sign of life. `sync` tells MLflow.
    """
    files = sorted(Path(runs_root).glob(f"*/*/tracking/{EVENTS_FILE}"))
    runs = [file.parent.parent for file in files]
    return [run for run in runs if mark_if_crashed(run)]


def mark_if_crashed(run_directory: Path) -> bool:
    """Like `mark_crashed` for one run; whether it was marked now."""
    if last_status(tracking_folder(run_directory)) != "RUNNING" or alive(run_directory):
        return False
    mark_killed(run_directory)
    return True


def mark_killed(run_directory: Path) -> None:
    """Record FAILED, state "killed", for the run and its unfinished stages."""
    mark_ended(run_directory, "FAILED", "killed")


def mark_ended(run_directory: Path, status: Status, state: str) -> None:
    """Record how a run ended that could not say so, and its unfinished stages: at its last sign
    of life.
    """  # noqa: D205
    ended = last_sign_of_life(run_directory)
    for folder in reversed(spool_folders(run_directory)):
        if last_status(folder) == "RUNNING":
            spool = Spool(folder, rank=0)
            spool.status(status, state=state, at=ended)
            spool.close()


def end_stages(run_directory: Path, status: Status, state: str) -> None:
    """Record how stages end that say RUNNING although their run is over."""
    for folder in spool_folders(run_directory)[1:]:
        if last_status(folder) == "RUNNING":
            spool = Spool(folder)
            spool.status(status, state)
            spool.close()


def write_atomically(path: Path, text: str) -> None:
    """Replace a file's text in one step: a reader sees the old one or the new one, whole."""
    half = path.with_name(f"{path.name}.{os.getpid()}.part")
    half.write_text(text, encoding="utf-8")
    os.replace(half, path)


def _claimed(run_directory: Path) -> dict[str, Any] | None:
    try:
        claimed: dict[str, Any] = json.loads(
            (tracking_folder(run_directory) / PROCESS_FILE).read_text(encoding="utf-8")
        )
    except (OSError, ValueError):
        return None
    return claimed


def _began(folder: Path) -> int:
    first = next(read_events(folder / EVENTS_FILE), None)
    return int(first[0]["t"]) if first else 0
