"""A finished run's held-out scores."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from lit_eve.inference.opening import open_run
from lit_eve.running.directory import RunDirectory


def evaluate_run(
    directory: RunDirectory,
    stage: str | None,
    questions: int | None,
    data: Path,
    console: Console,
) -> dict[str, float]:
    """Scores of a run's model on held-out questions; kept in the run as `evaluation.json`."""
    kind, name, model = open_run(directory, stage, data, console)
    result = kind.examine(name, model, questions)
    table = Table("score", name, title=kind.scores_title, title_justify="left")
    for score, value in result.items():
        table.add_row(score, kind.written(score, value))
    console.print(table)
    directory.write_json(f"{name}/evaluation.json", {"questions": questions, "scores": result})
    return result
