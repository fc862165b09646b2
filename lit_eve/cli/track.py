"""Verbs about what runs leave behind."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lit_eve.cli.words import RUNS, Runs, console


def list_runs(runs: Runs = RUNS) -> None:
    """List runs: status, stage, best score, duration."""
    from rich.table import Table

    from lit_eve.tracking.liveness import mark_crashed
    from lit_eve.tracking.runs import list_runs as find_runs

    marked = mark_crashed(runs)
    table = Table("experiment", "run", "status", "stage", "best", "minutes")
    for row in find_runs(runs):
        best = "" if row.best is None else f"{row.metric} {row.best:.3f}"
        minutes = f"{row.seconds / 60:.1f}"
        table.add_row(
            row.experiment, row.directory.name, row.status, row.stage or "", best, minutes
        )
    console().print(table)
    if marked:
        console().print(f"{len(marked)} had crashed and are marked. Tell MLflow: lit-eve sync")


def sync(
    run: Annotated[
        str | None, typer.Argument(help="A run or a search; all if absent.", metavar="[RUN]")
    ] = None,
    uri: Annotated[str | None, typer.Option(help="The store; the experiment's if absent.")] = None,
    runs: Runs = RUNS,
) -> None:
    """Send to the tracker what it does not have yet."""
    from lit_eve.running.syncing import store_of, target, unsent

    if run is None:
        waiting = list(unsent(runs, uri))
        for missing in waiting:
            _send(*missing)
        if not waiting:
            console().print(f"nothing to send: the store has all of {runs}")
        return
    directory = target(run, runs)
    store = uri or store_of(directory)
    if store is None:
        raise ValueError("the experiment says `tracking: {type: none}`. Name a store with --uri.")
    _send(directory, store)


def _send(directory: Path, store: str) -> None:
    """Send one run and say what that was."""
    from lit_eve.tracking.shipper import sync as send

    sent = send(directory, store)
    refused = f", {sent.num_refused} refused" if sent.num_refused else ""
    name = f"{directory.parent.name}/{directory.name}"
    console().print(
        f"{name}: {sent.num_sent} events sent{refused}; run {sent.run_id}",
        highlight=False,
        soft_wrap=True,
    )


def ui(
    uri: Annotated[str, typer.Option(help="The store.")] = "sqlite:///mlflow.db",
    port: Annotated[int, typer.Option(help="Port on this machine.")] = 5000,
    runs: Runs = RUNS,
) -> None:
    """Open the MLflow UI on the right store, sending what it lacks."""
    from lit_eve.running.syncing import unsent
    from lit_eve.tracking.shipper import SyncError
    from lit_eve.tracking.ui import serve

    for directory, store in unsent(runs, uri):
        try:
            _send(directory, store)
        except SyncError as error:  # being shipped, or the server is not there yet
            console().print(str(error), highlight=False, soft_wrap=True)
    serve(uri, port)
