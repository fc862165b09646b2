"""Verbs about what runs leave behind."""

from __future__ import annotations

from typing import Annotated

import typer

from lit_eve.cli.words import RUNS, Run, Runs, console


def list_runs(runs: Runs = RUNS) -> None:
    """List runs: status, stage, best score, duration."""
    from rich.table import Table

    from lit_eve.tracking.liveness import mark_crashed
    from lit_eve.tracking.runs import list_runs as find_runs

    mark_crashed(runs)
    table = Table("experiment", "run", "status", "stage", "best", "minutes")
    for row in find_runs(runs):
        best = "" if row.best is None else f"{row.metric} {row.best:.3f}"
        minutes = f"{row.seconds / 60:.1f}"
        table.add_row(
            row.experiment, row.directory.name, row.status, row.stage or "", best, minutes
        )
    console().print(table)


def sync(
    run: Run,
    uri: Annotated[str | None, typer.Option(help="The store; the experiment's if absent.")] = None,
    runs: Runs = RUNS,
) -> None:
    """Send to the tracker what it does not have yet of a run."""
    from lit_eve.running.directory import find
    from lit_eve.schema import load
    from lit_eve.schema.running import MLflowTracking
    from lit_eve.tracking.shipper import sync as send

    directory = find(run, runs)
    tracking = load(directory.experiment_file).tracking
    store = uri or (tracking.uri.resolved() if isinstance(tracking, MLflowTracking) else None)
    if store is None:
        raise ValueError("the experiment says `tracking: {type: none}`. Name a store with --uri.")
    print(send(directory.path, store))


def ui(
    uri: Annotated[str, typer.Option(help="The store.")] = "sqlite:///mlflow.db",
    port: Annotated[int, typer.Option(help="Port on this machine.")] = 5000,
) -> None:
    """Open the MLflow UI on the right store."""
    from lit_eve.tracking.ui import serve

    serve(uri, port)
