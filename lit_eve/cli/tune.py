"""Verbs that search for better settings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lit_eve.cli.words import DATA, RUNS, Data, File, Overrides, Runs, Tiny, console

if TYPE_CHECKING:
    from lit_eve.tuning.study import Searching


def search(
    file: File,
    overrides: Overrides = None,
    tiny: Tiny = False,
    workers: Annotated[int, typer.Option(help="Trials at a time on this machine.", min=0)] = 1,
    report: Annotated[bool, typer.Option("--report", help="Only show what it found.")] = False,
    runs: Runs = RUNS,
    data: Data = DATA,
) -> None:
    """Try settings, each by a run; started again, it goes on."""
    from lit_eve.tuning.study import Place, Searching

    place = Place(file, tuple(overrides or ()), tiny, runs, data)
    if report:
        _show(Searching(place, create=False))
        return
    from lit_eve.tuning.search import search as start

    _show(start(place, workers, _say))


def worker(
    file: File,
    overrides: Overrides = None,
    tiny: Tiny = False,
    runs: Runs = RUNS,
    data: Data = DATA,
) -> None:
    """Help with a search, from any machine that reaches it."""
    from lit_eve.tuning.study import Place, Searching
    from lit_eve.tuning.worker import run_worker

    place = Place(file, tuple(overrides or ()), tiny, runs, data)
    run_worker(Searching(place, create=False), data, _say)


def _say(line: str) -> None:
    print(line, flush=True)


def _show(searching: Searching) -> None:
    """The table of trials, and what to do next."""
    from rich.table import Table

    from lit_eve.tuning import report

    reruns = searching.reruns()
    report.write(searching, reruns)
    for title, rows in (
        (report.verdict(searching), list(report.cells(searching))),
        ("the best, with more seeds", report.rerun_cells(searching, reruns)),
    ):
        if len(rows) < 2:
            continue
        table = Table(*rows[0], title=title, title_justify="left")
        for row in rows[1:]:
            table.add_row(*row)
        console().print(table, markup=False)
    folder: Path = searching.place.folder
    console().print(f"report  {folder / report.REPORT_FILE}", highlight=False, soft_wrap=True)
    if (folder / report.BEST_FILE).is_file():
        line = f"next    lit-eve run {folder / report.BEST_FILE}"
        console().print(line, highlight=False, soft_wrap=True)
