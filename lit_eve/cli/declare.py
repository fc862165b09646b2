"""Verbs that read an experiment file and start nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lit_eve.cli.words import File, Overrides, Tiny, console


def check(file: File, overrides: Overrides = None, tiny: Tiny = False) -> None:
    """Say in under a second what is wrong with a file."""
    from lit_eve.schema.benchmarks import Benchmark
    from lit_eve.schema.report import check as check_file

    report = check_file(file, overrides or (), tiny)
    console().print(report.text(markup=True), soft_wrap=True)
    if not report.ok:
        raise typer.Exit(2)
    task = isinstance(report.experiment, Benchmark)
    print(f"next  lit-eve evaluate RUN --tasks {file}" if task else f"next  lit-eve plan {file}")


def plan(
    file: File,
    overrides: Overrides = None,
    tiny: Tiny = False,
    devices: Annotated[int | None, typer.Option(help="Devices to plan for.")] = None,
) -> None:
    """Say what an experiment will train, load, cost and leave."""
    from lit_eve.planning.plan import show
    from lit_eve.running.kinds import plan_file

    show(plan_file(file, overrides or (), tiny=tiny, devices=devices), console())
    print(f"next  lit-eve run {file}")


def schema(
    to: Annotated[Path, typer.Option(help="File to write.")] = Path("experiments/schema.json"),
) -> None:
    """Write the JSON Schemas that editors complete files with."""
    import json

    from lit_eve.schema.json_schema import benchmark_schema, json_schema

    tasks = to.parent / "tasks" / to.name
    tasks.parent.mkdir(exist_ok=True)
    for file, schema in ((to, json_schema()), (tasks, benchmark_schema())):
        file.write_text(json.dumps(schema, indent=1) + "\n", encoding="utf-8")
        print(f"wrote {file}")
