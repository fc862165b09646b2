"""What differs between two runs: experiment, code, data, environment, and scores."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import unified_diff
from typing import Any

from rich.console import Console
from rich.table import Table

from lit_eve.comparison.reading import RecordedRun, differences, flat

_MACHINE = ("python", "platform", "cpus", "memory_gib", "accelerators", "packages")
_COUNTS = ("steps", "samples", "seconds", "val/loss", "memory_peak_gib")

Differences = dict[str, tuple[Any, Any]]


def compare(one: RecordedRun, other: RecordedRun) -> dict[str, Differences]:
    """Everything that differs, by section; a section in which nothing does is empty."""
    return {
        "experiment": differences(flat(one.experiment), flat(other.experiment)),
        "code": differences(_code(one), _code(other)),
        "data": differences(_data(one), _data(other)),
        "environment": differences(_machine(one), _machine(other)),
        "results": differences(_results(one), _results(other)),
    }


def show(one: RecordedRun, other: RecordedRun, console: Console) -> None:
    """The differences as one table a section."""
    for section, found in compare(one, other).items():
        if not found:
            console.print(f"{section}: the same", highlight=False)
            continue
        table = Table(title=section, title_justify="left")
        for heading in ("", one.label, other.label):
            table.add_column(heading, overflow="fold")
        changes = any(isinstance(a, float) and isinstance(b, float) for a, b in found.values())
        if changes:
            table.add_column("change", justify="right")
        for name, (mine, theirs) in found.items():
            change = [_change(mine, theirs)] if changes else []
            table.add_row(name, _word(mine), _word(theirs), *change)
        console.print(table)
    for line in _source_changes(one, other):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _code(run: RecordedRun) -> dict[str, Any]:
    git = run.environment.get("git") or {}
    uncommitted = len((git.get("diff") or "").splitlines())
    return {
        "commit": git.get("commit"),
        "lines of uncommitted changes": uncommitted,
        "command": run.environment.get("command"),
    }


def _data(run: RecordedRun) -> dict[str, Any]:
    """What was read; the same data in another place is the same."""
    return flat({name: {**facts, "path": None} for name, facts in run.data.items()})


def _source_changes(one: RecordedRun, other: RecordedRun) -> Iterator[str]:
    """How the uncommitted changes differ, if both ran on the same commit."""
    mine, theirs = (run.environment.get("git") or {} for run in (one, other))
    if mine.get("commit") == theirs.get("commit"):
        before, after = ((git.get("diff") or "").splitlines() for git in (mine, theirs))
        yield from unified_diff(before, after, one.label, other.label, lineterm="", n=1)


def _machine(run: RecordedRun) -> dict[str, Any]:
    return flat({key: run.environment[key] for key in _MACHINE if key in run.environment})


def _results(run: RecordedRun) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for stage in run.stages:
        summary = run.summary(stage)
        found |= {f"{stage}.{key}": summary[key] for key in _COUNTS if key in summary}
        found |= {f"{stage}.{key}": float(v) for key, v in summary.get("scores", {}).items()}
    return found


def _word(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _change(mine: Any, theirs: Any) -> str:
    if isinstance(mine, float) and isinstance(theirs, float):
        return f"{theirs - mine:+.4g}"
    return ""
