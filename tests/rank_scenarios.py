"""Trainings that the tests of tests/distributed run on every rank and on one process."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lit_eve.checkpoints import AtomicCheckpointIO, Checkpoints, newest
from lit_eve.strategies import Sharding, build_strategy, gather_weights
from lit_eve.strategies.saving import gather
from lit_eve_callbacks.random_state import RandomState
from lit_eve_callbacks.staged_unfreezing import StagedUnfreezing
from lit_eve_callbacks.stop_on_signal import StopOnSignal
from tests.tiny_training import Loader, Task, fit

PARTS = {"decoder": 0, "encoder": 3}
STEPS = 6


@dataclass(frozen=True)
class Plan:
    """One training: everything a test varies."""

    strategy: Literal["auto", "ddp", "fsdp", "hsdp"] = "auto"
    steps: int = STEPS
    parts: dict[str, int] = field(default_factory=lambda: {"decoder": 0, "encoder": 0})
    dropout: float = 0.0
    directory: Path | None = None
    every: int = 1
    keep: int = 20
    crash: int | None = None
    sharded_checkpoints: bool = True
    background: bool = False
    gather_dtype: torch.dtype | None = None
    task: Callable[[float], LightningModule] = Task
    loader: Callable[[], Loader] = Loader
    callbacks: tuple[Callback, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)


class CrashError(Exception):
    pass


class Crash(Callback):
    """Right after the checkpoint of a step, on every rank."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self.step:
            raise CrashError


@dataclass(frozen=True)
class Result:
    """What a rank has at the end."""

    weights: dict[str, Tensor]
    """All of them, on rank zero."""
    divergence: float


def train(plan: Plan) -> Result:
    """Start, or go on from the newest checkpoint of `plan.directory`."""
    world = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
    torch.manual_seed(3)
    task = plan.task(plan.dropout)
    callbacks: list[Callback] = [
        StagedUnfreezing(plan.parts),
        RandomState(),
        StopOnSignal(),
        *plan.callbacks,
    ]
    options = dict(plan.options)
    if plan.directory is not None:
        callbacks.append(Checkpoints(plan.directory, plan.every, plan.keep))
        options["plugins"] = [AtomicCheckpointIO(plan.background)]
        options["resume"] = newest(plan.directory)
    if plan.crash is not None:
        callbacks.append(Crash(plan.crash))
    sharding = None
    if plan.strategy in ("fsdp", "hsdp"):
        sharding = Sharding(
            replicate=2 if plan.strategy == "hsdp" else None,
            gather_dtype=plan.gather_dtype,
            sharded_checkpoints=plan.sharded_checkpoints,
            background=plan.background and plan.sharded_checkpoints,
        )
    strategy = build_strategy(plan.strategy, world, sharding=sharding)
    with contextlib.suppress(CrashError):
        fit(
            task,
            callbacks,
            loader=plan.loader,
            strategy=strategy,
            devices=world,
            max_steps=plan.steps,
            **options,
        )
    return Result(gather_weights(task), divergence(task))


def divergence(task: LightningModule) -> float:
    """Largest difference between what two ranks hold, or put together from all shards."""
    whole = [
        tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
        for tensor in (*task.parameters(), *task.buffers())
    ]
    mine = torch.cat([tensor.detach().double().flatten() for tensor in whole])
    return max(float((mine - other).abs().max()) for other in gather(mine))


def difference(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """Largest, over all weights."""
    assert one.keys() == other.keys()
    return max(float((one[name].double() - other[name].double()).abs().max()) for name in one)
