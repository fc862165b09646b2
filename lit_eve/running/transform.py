"""A stage that trains nothing: it changes the weights it is given, or brings them in."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from lightning import seed_everything
from torch import nn

from lit_eve.checkpoints import read_weights, write_weights
from lit_eve.importing.exported import is_export, read_exported
from lit_eve.running.kinds import Kind
from lit_eve.running.trainer import peak_memory
from lit_eve.running.weights import load_weights
from lit_eve.schema.training import Transform
from lit_eve.tracking.spool import environment_rank

PATIENCE = 3600.0
"""Seconds that other processes wait for the one that works."""


def transform_stage(kind: Kind[Any, Any], name: str) -> dict[str, Any]:
    """Do what the stage says, once, in the first process.

    Returns:
        Its summary, as written to `summary.json`.

    Raises:
        ValueError: if the weights are not this model's.
        RuntimeError: if the first process does not come to an end.
    """
    directory = kind.directory
    if environment_rank() > 0:
        return _wait(kind, name)
    started = time.time()
    stage = kind.experiment.stages[name]
    assert isinstance(stage, Transform)
    seed_everything(kind.experiment.seed, verbose=False)
    before = kind.experiment.source_of(name)
    file = None if before is None else directory.weights(before)
    if stage.weights is not None:
        file = Path(stage.weights.resolved())
    model = kind.model(weights=file is None)
    if file is not None:
        _load(kind, model, file)
        kind.console.print(f"  weights: all {len(model.state_dict())} tensors from {file}")
    if stage.do != "load":
        kind.transform(model, stage.do)
    write_weights(directory.weights(name), model.state_dict())
    summary: dict[str, Any] = {"state": "finished", "did": stage.do, "steps": 0, "samples": 0}
    summary |= {"seconds": round(time.time() - started, 1), "memory_peak_gib": peak_memory()}
    directory.write_json(f"{name}/summary.json", summary)
    return summary


def _load(kind: Kind[Any, Any], model: nn.Module, file: Path) -> None:
    """All weights from a file, a folder of shards or an exported model."""
    if not is_export(file):
        load_weights(model, read_weights(file), file)
        return
    kind.accept(file)
    try:
        load_weights(model, read_exported(file), file)
    except ValueError as error:
        raise ValueError(
            f"{error} An export leaves out what only training needs, such as patch_alignment: load "
            "the run's own model.safetensors to go on with it."
        ) from error


def _wait(kind: Kind[Any, Any], name: str) -> dict[str, Any]:
    """Processes may not know each other yet: the summary is the sign that all is written."""
    limit = time.monotonic() + PATIENCE
    while not kind.directory.finished(name):
        if time.monotonic() > limit:
            raise RuntimeError(
                f"the first process has not finished stage {name} in {PATIENCE:.0f} s, so its "
                "weights are not there. Look at its messages."
            )
        time.sleep(0.2)
    return kind.directory.summary(name) or {}
