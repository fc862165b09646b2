"""The verb that gives a trained model away."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lit_eve.cli.words import RUNS, Run, Runs


def export(
    run: Run,
    to: Annotated[Path, typer.Option(help="The folder to write; new, or empty.")],
    stage: Annotated[
        str | None, typer.Option(help="Its weights; the last one's if absent.")
    ] = None,
    step: Annotated[
        int | None, typer.Option(help="Of a checkpoint; the final weights, or the newest.")
    ] = None,
    runs: Runs = RUNS,
) -> None:
    """Write a run as a Hugging Face model, with its card."""
    from lit_eve.running.directory import find

    directory = find(run, runs)
    from lit_eve.hub.export import export as write

    done = write(directory, to, stage, step)
    print(f"wrote {done.folder}: {done.experiment.name}, stage {done.stage}, {done.file.name}")
    print(f"next  {done.folder / 'README.md'} says how to open it")
