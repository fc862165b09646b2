"""Verbs that train."""

from __future__ import annotations

from typing import Annotated

import typer

from lit_eve.cli.words import DATA, RUNS, Changes, Data, File, Overrides, Run, Runs, Tiny, console


def run(
    file: File,
    overrides: Overrides = None,
    tiny: Tiny = False,
    stage: Annotated[str | None, typer.Option(help="Stage to start at.")] = None,
    runs: Runs = RUNS,
    data: Data = DATA,
) -> None:
    """Train all stages of an experiment, or go on with a run."""
    from lit_eve.running.directory import EXPERIMENT_FILE, RunDirectory

    going_on = (file / EXPERIMENT_FILE).is_file()
    if going_on and tiny:
        raise ValueError(
            f"{file} is a run: it goes on as it began, so --tiny would be ignored. Leave it out, "
            "or start a new run from an experiment file."
        )
    from lit_eve.running import run as running

    if going_on:
        running.resume(RunDirectory(file.absolute()), data, stage, console(), overrides or ())
        return
    running.start(
        file, overrides or (), tiny=tiny, runs=runs, data=data, first=stage, console=console()
    )


def resume(
    run: Run,
    changes: Changes = None,
    stage: Annotated[str | None, typer.Option(help="Stage to start at.")] = None,
    runs: Runs = RUNS,
    data: Data = DATA,
) -> None:
    """Go on with a run exactly where it stopped."""
    from lit_eve.running.directory import find

    directory = find(run, runs)
    from lit_eve.running import run as running

    running.resume(directory, data, stage, console(), changes or ())
