"""One run on disk: one id = one directory = one MLflow run, kept across resume.

runs/<experiment>/<run id>/
    experiment.yaml      the resolved experiment
    environment.json     versions, git state, command
    plan.json            what was expected before the start
    text/                the text tokenizer, when it was trained here
    <stage>/checkpoints/ step-00000123.ckpt and its manifest
    <stage>/model.safetensors   the stage's final weights, what the next stage starts from
    <stage>/summary.json        final metrics, steps, samples, wall time, exit state
"""

from __future__ import annotations

import json
import os
import secrets
import tempfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

EXPERIMENT_FILE = "experiment.yaml"
RUN_VARIABLE = "LIT_EVE_RUN_DIRECTORY"
"""Tells processes started for other ranks which directory rank zero has chosen."""


@dataclass(frozen=True)
class RunDirectory:
    """Paths of a run and its small JSON files."""

    path: Path

    @property
    def id(self) -> str:
        """The run's id: the directory's name."""
        return self.path.name

    @property
    def experiment_file(self) -> Path:
        """The resolved experiment."""
        return self.path / EXPERIMENT_FILE

    @property
    def text(self) -> Path:
        """The text tokenizer trained for this run."""
        return self.path / "text"

    def stage(self, name: str) -> Path:
        """The directory of one stage."""
        return self.path / name

    def checkpoints(self, name: str) -> Path:
        """The checkpoints of one stage."""
        return self.path / name / "checkpoints"

    def weights(self, name: str) -> Path:
        """The final weights of one stage."""
        return self.path / name / "model.safetensors"

    def summary(self, name: str) -> dict[str, Any] | None:
        """The summary of a stage, or None while it has none."""
        file = self.path / name / "summary.json"
        return json.loads(file.read_text()) if file.is_file() else None

    def finished(self, name: str) -> bool:
        """Whether a stage ran to its end."""
        summary = self.summary(name)
        return summary is not None and summary.get("state") == "finished"

    def write_json(self, relative: str, value: object) -> Path:
        """Write a JSON file so that a reader sees the old one or the new one, never half of it."""
        return write_atomically(self.path / relative, json.dumps(value, indent=2) + "\n")


def write_atomically(path: Path, text: str) -> Path:
    """Write beside the final name, then rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
    return path


def create(root: Path, experiment: str, now: datetime | None = None) -> RunDirectory:
    """Make the directory of a new run; all ranks of one launch get the same one.

    Lightning's launcher hands `RUN_VARIABLE` to the ranks it starts; under torchrun rank zero
    chooses and tells the rest; a job of SLURM and its step have numbers that all ranks know.

    Raises:
        ValueError: if the directory cannot be written, before any work starts.
    """
    chosen = os.environ.get(RUN_VARIABLE)
    stamp = f"{(now or datetime.now()):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    agreed = None if chosen else _agreed_id(stamp)
    path = Path(chosen or root / experiment / (agreed or stamp)).absolute()
    try:
        path.mkdir(parents=True, exist_ok=bool(chosen or agreed))
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise ValueError(
            f"cannot write the run folder {path} ({error.strerror}): checkpoints would be lost. "
            "Choose a writable place with --runs DIR."
        ) from error
    os.environ[RUN_VARIABLE] = str(path)
    return RunDirectory(path)


def _agreed_id(stamp: str) -> str | None:
    """The id that the ranks of a launch agree on, or None for a process that others follow."""
    env = os.environ
    if "TORCHELASTIC_RUN_ID" in env and env["WORLD_SIZE"] != "1":
        from lit_eve.strategies.meeting import said_by_rank_zero

        return said_by_rank_zero("run", lambda: stamp)
    if int(env.get("SLURM_NTASKS", "1")) > 1 and "SLURM_STEP_ID" in env:
        return f"slurm-{env['SLURM_JOB_ID']}-{env['SLURM_STEP_ID']}"
    return None


def find(run: str, root: Path) -> RunDirectory:
    """The run that a user means: a path, an id or its start, or an experiment's newest run.

    Its experiment's name may stand before an id, as messages write it: `quickstart/20260101-12`.

    Raises:
        ValueError: if nothing, or more than one run, fits.
    """
    direct = Path(run)
    if (direct / EXPERIMENT_FILE).is_file():
        return RunDirectory(direct.absolute())
    runs = sorted(path.parent for path in root.glob(f"*/*/{EXPERIMENT_FILE}"))
    named = [path for path in runs if path.parent.name == run]
    if named:
        return RunDirectory(named[-1].absolute())
    experiment, _, start = run.rpartition("/")
    matching = [
        path
        for path in runs
        if path.name.startswith(start) and experiment in ("", path.parent.name)
    ]
    if len(matching) == 1:
        return RunDirectory(matching[0].absolute())
    if matching:
        raise ValueError(
            f"{run!r} fits {len(matching)} runs: {', '.join(p.name for p in matching[:5])}."
        )
    known = ", ".join(f"{path.parent.name}/{path.name}" for path in runs[-5:]) or "none yet"
    raise ValueError(
        f"no run {run!r} under {root}: nothing to continue or look at. Give a run's folder, its id "
        f"or its experiment's name. Newest runs: {known}."
    )
