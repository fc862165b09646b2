"""Whole runs that tests/distributed starts on every rank, as torchrun would."""

from __future__ import annotations

import io
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self
from unittest.mock import patch

import torch
from lightning.pytorch import LightningModule, Trainer
from rich.console import Console

from lit_eve.checkpoints import AtomicCheckpointIO, files
from lit_eve.running import directory as run_directory
from lit_eve.running import micro_batch, run, stage
from lit_eve.running.directory import RunDirectory
from lit_eve.running.dry_steps import DryRun
from lit_eve.running.going_on import newest_for_all
from lit_eve.strategies import Launch
from lit_eve_callbacks.stop_on_signal import StopOnSignal

EXPERIMENT = """\
name: ranks
model:
  type: encoder_free
  language_model: {type: llama, width: 16, depth: 2, heads: 2}
  text: {type: bytes}
  patch_embedding: {type: eve, patch: 4, pool: 2, width: 16, heads: 2}
  patch_alignment: {width: 16, heads: 2, every: 1}
  teacher: {type: random, width: 16, depth: 2, heads: 2, patch: 8, image: 16}
loss: {alignment: {weight: 1.0}}
datasets:
  scenes: {type: scenes, train: 64, val: 16, test: 16, cell: 8, sides: [16, 24], digits: [1, 1],
           glyphs: [14], kinds: {caption/digits: 1, question/read: 1}}
defaults:
  batch: 16
  tokens_per_row: 128
  optimizer: {type: adamw, schedule: constant, warmup: 0 steps, eps: 1e-3}
stages:
  align:
    task: alignment
    data: {scenes: 1}
    for: 6 steps
    train: {patch_embedding: 1e-2, patch_alignment: 1e-2, language_model: {lr: 1e-2, thaw: 2}}
  read: {task: language, data: {scenes: 1}, for: 2 steps, train: {language_model: 1e-2}}
evaluate: {every: 4, answers: 1, questions: 1}
checkpoint: {every: 2}
hardware: {accelerator: cpu, threads: 1}
tracking: {type: none}
"""


class StopsItself(StopOnSignal):
    """SIGTERM reaches the last rank in the third step of the first stage."""

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == 2 and trainer.global_rank == trainer.world_size - 1:
            signal.raise_signal(signal.SIGTERM)


class ScriptedSteps:
    """A row takes 100 bytes; devices have room for two rows, the last one for one."""

    room = (220, 110)

    def __init__(self, run: DryRun) -> None:
        last = run.local_rank == run.devices - 1
        self.limit = self.room[int(last)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *reason: object) -> None:
        pass

    def peak(self, rows: int) -> int | None:
        return 100 * rows if 100 * rows <= self.limit else None


def no_room_on_the_last(file: Path, runs: Path, data: Path, changes: tuple[str, ...]) -> str:
    """What everybody is told."""
    with patch.object(ScriptedSteps, "room", (220, 90)):
        try:
            start(file, runs, data, changes)
        except ValueError as error:
            return str(error)
    return ""


def start(
    file: Path, runs: Path, data: Path, changes: tuple[str, ...] = (), stop: bool = False
) -> str:
    """The run's directory, or by what signal it ended."""
    stopping = StopsItself if stop else StopOnSignal
    with (
        _own_directory(),
        patch.object(stage, "StopOnSignal", stopping),
        patch.object(micro_batch, "DrySteps", ScriptedSteps),
    ):
        try:
            directory = run.start(
                file,
                changes,
                tiny=False,
                runs=runs,
                data=data,
                first=None,
                console=silent(),
            )
        except stage.RunInterrupted as stopped:
            return stopped.name
    return str(directory.path)


def resume(directory: Path, data: Path, changes: tuple[str, ...] = ()) -> str:
    """Go on to the end."""
    with _own_directory():
        run.resume(RunDirectory(directory), data, None, silent(), changes)
    return str(directory)


def named_before_there_is_a_group(root: Path, port: int) -> str:
    """The directory that this rank opens where ranks have not met yet."""
    with (
        _own_directory(),
        patch.dict(os.environ, {"MASTER_PORT": str(port)}),
        patch.object(torch.distributed, "is_initialized", lambda: False),
    ):
        return str(run_directory.create(root, "demo").path)


def found_and_loaded(directory: Path) -> tuple[str, int]:
    """What this rank goes on from, and how many files it has hashed for that."""
    hashed: list[Path] = []
    hash_of = files.sha256_of

    def counted(file: Path) -> str:
        hashed.append(file)
        return hash_of(file)

    with patch.object(files, "sha256_of", counted):
        found = newest_for_all(directory, Launch(2, 1, "torchrun"), lambda message: None)
        assert found is not None
        AtomicCheckpointIO().load_checkpoint(found)
    return found.name, len(hashed)


def silent() -> Console:
    return Console(file=io.StringIO())


@contextmanager
def _own_directory() -> Iterator[None]:
    """A run leaves its folder's name for the ranks it starts; the next one is another run."""
    with patch.dict(os.environ):
        os.environ.pop(run_directory.RUN_VARIABLE, None)
        yield
