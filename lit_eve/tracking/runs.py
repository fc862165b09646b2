"""The runs below a folder, for a list in the terminal: read from the spools, without MLflow."""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lit_eve.tracking.liveness import alive, spool_folders
from lit_eve.tracking.spool import EVENTS_FILE, STATE_TAG, read_events

OBJECTIVE_TAG = "lit_eve.objective"
Direction = Literal["maximize", "minimize"]


@dataclass(frozen=True)
class RunRow:
    """One run.

    `status` is finished, failed, killed, running, or stale (it says running, but nobody runs it);
    `seconds` counts while it ran, without the pauses between resumes.
    """

    experiment: str
    name: str
    directory: Path
    status: str
    stage: str | None
    metric: str | None
    best: float | None
    began: float
    seconds: float


def objective(metric: str, direction: Direction) -> dict[str, str]:
    """Tags that say which metric makes a run good; record them on the run's own spool."""
    return {OBJECTIVE_TAG: f"{direction} {metric}"}


def list_runs(runs_root: Path) -> list[RunRow]:
    """All runs below `<runs_root>/<experiment>/<run id>/`, the newest first."""
    files = Path(runs_root).glob(f"*/*/tracking/{EVENTS_FILE}")
    rows = [row for file in files if (row := _row(file.parent.parent)) is not None]
    return sorted(rows, key=lambda row: row.began, reverse=True)


def best_value(run_directory: Path, metric: str, direction: Direction) -> float | None:
    """The best recorded value of a metric over all spools of a run, None if there is none."""
    values = [
        float(value)
        for folder in spool_folders(run_directory)
        for value in _values(folder / EVENTS_FILE, metric)
        if isinstance(value, int | float) and not math.isnan(value)
    ]
    if not values:
        return None
    return max(values) if direction == "maximize" else min(values)


def final_scores(spool_folder: Path) -> list[tuple[int, dict[str, float]]]:
    """The last value of every held-out metric of a stage, by step: what a list of runs shows."""
    last: dict[str, tuple[int, float]] = {}
    for event, _ in read_events(Path(spool_folder) / EVENTS_FILE):
        if event["k"] == "metrics":
            for key, value in event["v"].items():
                if key.startswith(("val/", "test/")):
                    last[key] = (int(event["s"]), value)
    steps = sorted({step for step, _ in last.values()})
    return [(at, {key: v for key, (step, v) in last.items() if step == at}) for at in steps]


def _row(directory: Path) -> RunRow | None:
    own, *stages = spool_folders(directory)
    tags: dict[str, str] = {}
    began: float | None = None
    since: float | None = None
    seconds = 0.0
    for event, _ in read_events(own / EVENTS_FILE):
        now = event["t"] / 1000
        began = now if began is None else began
        if event["k"] == "tags":
            tags |= event["v"]
        elif event["k"] == "status":
            if since is not None:
                seconds += max(0.0, now - since)
            since = now if event["v"] == "RUNNING" else None
    if began is None:
        return None
    status = tags.get(STATE_TAG, "running")
    if since is not None:
        status = "running" if alive(directory) else "stale"
        seconds += max(0.0, time.time() - since) if status == "running" else 0.0
    direction, _, metric = tags.get(OBJECTIVE_TAG, "").partition(" ")
    best = None
    if metric:
        best = best_value(directory, metric, "minimize" if direction == "minimize" else "maximize")
    return RunRow(
        experiment=directory.parent.name,
        name=directory.name,
        directory=directory,
        status=status,
        stage=stages[-1].parent.name if stages else None,
        metric=metric or None,
        best=best,
        began=began,
        seconds=seconds,
    )


def _values(path: Path, metric: str) -> list[object]:
    """Only lines that name the metric are parsed: a long run has a million others."""
    if not path.exists():
        return []
    wanted = json.dumps(metric).encode() + b":"
    found: list[object] = []
    with path.open("rb") as file:
        for line in file:
            if wanted in line and line.startswith(b'{"k":"metrics"') and line.endswith(b"\n"):
                found.append(json.loads(line)["v"].get(metric))
    return found
