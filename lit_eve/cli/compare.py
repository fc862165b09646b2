"""Verbs that hold runs against each other."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lit_eve.cli.words import RUNS, Run, Runs, console


def diff(
    one: Run,
    other: Run,
    runs: Runs = RUNS,
) -> None:
    """Say what differs between two runs, and in what they score."""
    from lit_eve.comparison.diff import show
    from lit_eve.comparison.reading import RecordedRun
    from lit_eve.running.directory import find

    show(RecordedRun(find(one, runs)), RecordedRun(find(other, runs)), console())


def table(
    chosen: Annotated[list[str], typer.Argument(help="Runs: folders or ids.", metavar="RUNS...")],
    to: Annotated[str, typer.Option(help="markdown, latex or csv.")] = "markdown",
    stage: Annotated[str | None, typer.Option(help="Its scores; the last one's if absent.")] = None,
    metric: Annotated[
        list[str] | None, typer.Option(help="Score to show, may be repeated; all if absent.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="File to write; else it is printed.")] = None,
    runs: Runs = RUNS,
) -> None:
    """Write a paper's table of runs, seeds as mean and spread."""
    from lit_eve.comparison.reading import RecordedRun
    from lit_eve.comparison.table import FORMS, rows, written
    from lit_eve.running.directory import find

    if to not in FORMS:
        raise ValueError(f"there is no form {to!r} of a table. Forms: {', '.join(FORMS)}.")
    found = [RecordedRun(find(run, runs)) for run in chosen]
    text = written(rows(found, stage, metric or ()), to)
    if out is None:
        print(text)
        return
    out.write_text(text + "\n", encoding="utf-8")
    print(f"wrote {out}")
