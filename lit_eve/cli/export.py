"""The verb that gives a trained model away."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from lit_eve.cli.words import RUNS, Run, Runs


def export(
    run: Run,
    to: Annotated[Path | None, typer.Option(help="The folder to write; new, or empty.")] = None,
    register: Annotated[
        str | None, typer.Option(metavar="NAME", help="Add it to MLflow's model registry.")
    ] = None,
    stage: Annotated[
        str | None, typer.Option(help="Its weights; the last one's if absent.")
    ] = None,
    step: Annotated[
        int | None, typer.Option(help="Of a checkpoint; the final weights, or the newest.")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="float32, bfloat16 or float16; as trained if absent.")
    ] = None,
    uri: Annotated[
        str | None, typer.Option(help="Store of the registry; the experiment's if absent.")
    ] = None,
    runs: Runs = RUNS,
) -> None:
    """Write a run as a Hugging Face model, with its card."""
    if to is None and register is None:
        raise ValueError(
            "export was not told where: add --to DIR for a folder, --register NAME for MLflow's "
            "model registry, or both."
        )
    if uri is not None and register is None:
        raise ValueError(f"--uri {uri} would be ignored: add --register NAME, or leave it out.")
    from lit_eve.hub.export import export as write
    from lit_eve.running.directory import find

    directory, store = find(run, runs), None
    if register is not None:
        from lit_eve.hub.registry import store_for

        store = store_for(directory, uri)  # without one nothing is written

    with TemporaryDirectory() as scratch:
        done = write(directory, to or Path(scratch) / "model", stage, step, dtype)
        wrote = f"wrote {to}: " if to else ""
        print(f"{wrote}{done.experiment.name}, stage {done.stage}, {done.file.name}")
        if register is None or store is None:
            print(f"next  {done.folder / 'README.md'} says how to open it")
            return
        from lit_eve.hub.registry import register as add

        added = add(directory, done, register, store)
    print(f"registered {added.name} version {added.version} in {added.store.shown}")
    serve = f"mlflow models serve -m {added.address} --env-manager local"
    print(f"next  MLFLOW_TRACKING_URI={added.store.shown} {serve}")
