"""One run, from an experiment file to its last checkpoint and scores: start reading here.

Experiment, directory, data, text, plan, stages, scores: in this order, each step announced.
"""

from __future__ import annotations

import logging
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from transformers.utils.logging import disable_progress_bar

from lit_eve.planning import plan
from lit_eve.running import directory as run_directory
from lit_eve.running import micro_batch
from lit_eve.running.directory import RunDirectory
from lit_eve.running.kinds import Kind, kind_of
from lit_eve.running.places import check_places
from lit_eve.running.recording import CHANGES, recorded
from lit_eve.running.stage import train_stage
from lit_eve.running.trainer import check_hardware, launch, limit_threads
from lit_eve.running.transform import transform_stage
from lit_eve.schema import Experiment, load
from lit_eve.tracking.environment import snapshot
from lit_eve.tracking.redact import redact
from lit_eve.tracking.spool import environment_rank

CHANGEABLE = re.compile(r"(hardware|checkpoint|profile)[.=]|stages\.[^.=]+\.precision=")
"""What may differ when a run goes on: where and how it is computed, not what is learnt."""


def start(
    file: Path,
    overrides: Sequence[str],
    *,
    tiny: bool,
    runs: Path,
    data: Path,
    first: str | None,
    console: Console,
) -> RunDirectory:
    """Run an experiment file in a new directory.

    Args:
        file: the experiment.
        overrides: `a.b=1` each.
        tiny: shrink it to run on any CPU in under a minute.
        runs: root of all runs.
        data: root of prepared datasets.
        first: stage to start at; None for the first.
        console: what the user sees.
    """
    experiment = load(file, overrides, tiny=tiny)
    if experiment.search is not None:
        raise ValueError(
            f"{file} declares a search, which a single run would ignore. Start it with "
            f"`lit-eve search {file}`, or run one setting from a file without `search:`."
        )
    check_hardware(experiment)
    check_places(experiment)
    directory = run_directory.create(runs, experiment.name)
    if environment_rank() == 0:
        _open(directory, experiment, overrides)
    return execute(experiment, directory, data, first, console)


def _open(directory: RunDirectory, experiment: Experiment, overrides: Sequence[str]) -> None:
    """Write down what is run, unless a launcher has started the same run again.

    Raises:
        ValueError: if the directory holds a run of something else.
    """
    text = experiment.to_yaml()
    if directory.experiment_file.is_file() and directory.experiment_file.read_text() != text:
        raise ValueError(
            f"{run_directory.RUN_VARIABLE} names {directory.path}, a run of another experiment "
            "file: this one would be ignored. Unset it, or `lit-eve resume` that run."
        )
    run_directory.write_atomically(directory.experiment_file, text)
    changes = {CHANGES: [redact(change) for change in overrides]}
    directory.write_json("environment.json", snapshot() | changes)


def resume(
    directory: RunDirectory,
    data: Path,
    first: str | None,
    console: Console,
    changes: Sequence[str] = (),
) -> RunDirectory:
    """Go on with a run exactly where it stopped, or anew from the stage `first`.

    Args:
        directory: the run.
        data: root of prepared datasets.
        first: stage to start at; None for the one that is not finished.
        console: what the user sees.
        changes: `a.b=1` each, of what does not decide what is learnt; kept in the run's file.

    Raises:
        ValueError: for a change of anything else.
    """
    for change in changes:
        if not CHANGEABLE.match(change):
            raise ValueError(
                f"{change} would make it another experiment: a run goes on with other hardware, "
                "checkpoints, profile or precision, all else as it began. Start a new run for it."
            )
    os.environ[run_directory.RUN_VARIABLE] = str(directory.path)
    experiment = load(directory.experiment_file, changes)
    check_hardware(experiment)
    check_places(experiment, finished=[n for n in experiment.stages if directory.finished(n)])
    if changes and environment_rank() == 0:
        run_directory.write_atomically(directory.experiment_file, experiment.to_yaml())
    return execute(experiment, directory, data, first, console)


def execute(
    experiment: Experiment,
    directory: RunDirectory,
    data: Path,
    first: str | None,
    console: Console,
) -> RunDirectory:
    """All stages of a run that are not finished yet.

    Raises:
        ValueError: for anything the user can mend, before work starts where possible.
        RunInterrupted: if a signal ended it in good order.
    """
    quiet()
    limit_threads(experiment.hardware)
    console.quiet = environment_rank() > 0  # one voice for all processes of a run
    console.print(f"[bold]{experiment.name}[/bold] → {directory.path}", highlight=False)
    names = _stages_to_run(experiment, directory, first)
    kind = kind_of(experiment).prepare(experiment, directory, data, console)
    spread = launch(experiment.hardware)
    found = micro_batch.find(kind, [n for n in experiment.trained if n in names], spread, data)
    kinds = {name: micro_batch.settled(kind, found.get(name)) for name in experiment.trained}
    plans = {name: kinds[name].plan(name, spread.world_size) for name in experiment.trained}
    plan.show(list(plans.values()), console)
    if environment_rank() == 0:
        sizes = {name: {micro_batch.KEY: asdict(size)} for name, size in found.items()}
        directory.write_json("plan.json", plan.as_json(list(plans.values()), sizes))
    summaries: dict[str, Any] = {}
    with recorded(kind, plans, summaries):
        for name in experiment.stages:
            if name in names:
                console.rule(f"stage {name}")
                if name in plans:
                    summaries[name] = train_stage(kinds[name], plans[name])
                    plan.compare(plans[name], summaries[name], console)
                else:
                    summaries[name] = transform_stage(kind, name)
            else:
                summaries[name] = directory.summary(name) or {}
    _conclude(summaries, kind)
    return directory


def _stages_to_run(experiment: Experiment, directory: RunDirectory, first: str | None) -> list[str]:
    """Names of the stages that are not finished, from `first` on.

    Raises:
        ValueError: if there is no such stage, or what it starts from is not there.
    """
    names = list(experiment.stages)
    if first is None:
        return [name for name in names if not directory.finished(name)]
    if first not in names:
        raise ValueError(f"there is no stage {first!r}. Stages: {', '.join(names)}.")
    before = experiment.source_of(first)
    if before is not None and not directory.weights(before).is_file():
        raise ValueError(
            f"stage {first!r} starts from the weights of {before!r}, and this run has none. Resume "
            f"a run that finished {before!r}: lit-eve resume RUN --stage {first}."
        )
    return names[names.index(first) :]


def _conclude(summaries: Mapping[str, Any], kind: Kind[Any, Any]) -> None:
    """Scores of every stage side by side, and the next sensible command."""
    table = Table(title=kind.scores_title, title_justify="left")
    table.add_column("score")
    names: list[str] = []
    summaries = {stage: told for stage, told in summaries.items() if "scores" in told}
    for stage, summary in summaries.items():
        table.add_column(stage, justify="right")
        names += [name for name in summary.get("scores", {}) if name not in names]
    for name in names:
        values = [summary.get("scores", {}).get(name) for summary in summaries.values()]
        table.add_row(name, *("" if v is None else kind.written(name, v) for v in values))
    kind.console.print(table)
    kind.console.print(f"run   {kind.directory.path}", highlight=False)
    kind.console.print("next  lit-eve ui", highlight=False)


def quiet() -> None:
    """Leave out what libraries say about themselves; their errors still come through."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    logging.getLogger("lightning.fabric").setLevel(logging.ERROR)
    logging.getLogger("litdata").setLevel(logging.ERROR)  # of options that reading by index ignores
    disable_progress_bar()  # type: ignore[no-untyped-call]  # Transformers' own, at every file
    warnings.filterwarnings("ignore", module="lightning")
    warnings.filterwarnings("ignore", category=UserWarning, module="torch.optim.lr_scheduler")
    if torch.cuda.is_available():
        torch.set_float32_matmul_precision("high")  # TF32 tensor cores; a CPU has no use for it
