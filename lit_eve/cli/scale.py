"""Verbs for machines with many devices."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lit_eve.cli.words import DATA, RUNS, Data, File, Overrides, Runs


def submit(
    file: File,
    overrides: Overrides = None,
    slurm: Annotated[bool, typer.Option("--slurm", help="For SLURM, the only one so far.")] = False,
    hours: Annotated[float, typer.Option(help="Time until the job is stopped and queued.")] = 24.0,
    partition: Annotated[str | None, typer.Option(help="Of the cluster.")] = None,
    account: Annotated[str | None, typer.Option(help="That pays.")] = None,
    runs: Runs = RUNS,
    data: Data = DATA,
) -> None:
    """Write and print a job script that goes on if preempted."""
    from pathlib import PurePosixPath

    from lit_eve.schema import load

    experiment = load(file, overrides or ())
    hardware = experiment.hardware
    if not slurm:
        raise ValueError("submit writes jobs for SLURM only, and wants to be told: add --slurm.")
    if hardware.devices == "auto":
        raise ValueError(
            "hardware.devices is auto, but the cluster has to be asked for a number: write it in "
            "the file, or add hardware.devices=8."
        )
    from lit_eve.strategies.launch import Launch
    from lit_eve.strategies.slurm import Job, job_script

    job = Job(experiment.name, hours, hardware.accelerator != "cpu", partition, account)
    folders = [f"--{name}={path.absolute()}" for name, path in (("runs", runs), ("data", data))]
    command = ["lit-eve", "run", str(file.absolute()), *(overrides or ()), *folders]
    spread = Launch(int(hardware.devices), hardware.nodes, "slurm")
    text = job_script(job, spread, command, PurePosixPath(runs.absolute()))
    script = runs / experiment.name / "job.sh"
    script.parent.mkdir(parents=True, exist_ok=True)
    script.write_text(text, encoding="utf-8")
    print(text)
    print(f"next  sbatch {script}")


def consolidate(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint: one file, or shards.")],
    to: Annotated[Path, typer.Argument(help="The safetensors file to write.")],
    prefix: Annotated[str, typer.Option(help="Start of names to keep, taken off.")] = "model.",
) -> None:
    """Turn a checkpoint of any devices into one safetensors file."""
    if to.suffix != ".safetensors":
        raise ValueError(f"{to} would not be read as weights: call it {to.stem}.safetensors.")
    from lit_eve.checkpoints import consolidate as write

    file = write(checkpoint, to, prefix)
    print(f"wrote {file} ({file.stat().st_size / 2**20:,.1f} MiB)")
