"""What goes wrong on one rank, and what Lightning and torch do wrong on several."""

from __future__ import annotations

import errno
import math
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.utils.data import DataLoader, TensorDataset

from lit_eve.checkpoints import (
    AtomicCheckpointIO,
    CheckpointError,
    Checkpoints,
    atomic,
    files,
)
from lit_eve.running.directory import RunDirectory
from lit_eve.running.trainer import make_trainer
from lit_eve.schema import load
from lit_eve.strategies import (
    ReplicatedStrategy,
    ShardedStrategy,
    builds_on_meta,
    gather_weights,
    usable_weights,
)
from lit_eve_callbacks.non_finite import NonFiniteGuard
from lit_eve_callbacks.random_state import RandomState
from lit_eve_callbacks.staged_unfreezing import StagedUnfreezing
from lit_eve_callbacks.step_watch import StepWatch
from lit_eve_callbacks.stop_on_signal import StopOnSignal
from tests.rank_scenarios import divergence
from tests.rank_tasks import EveTask, PackedRows
from tests.tiny_training import Record, Task, fit, weights


class Flip(Callback):
    """Thaws at step 2 without telling anybody."""

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == 2:
            for parameter in pl_module.parameters():
                parameter.requires_grad_(True)


def thaw_in_silence(guarded: bool) -> tuple[float, str]:
    """Divergence of the ranks, and what the guard said."""
    task = Task()
    strategy = (ReplicatedStrategy if guarded else DDPStrategy)()
    callbacks = [StagedUnfreezing({"decoder": 0}), Flip()]
    try:
        fit(task, callbacks, strategy=strategy, devices=2, max_steps=5)
    except RuntimeError as error:
        return 0.0, str(error)
    return divergence(task), ""


class AddParameter(Callback):
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        pl_module.late = nn.Parameter(torch.ones(2))


def parameter_outside_the_shards() -> str:
    try:
        fit(Task(), [AddParameter()], strategy=ShardedStrategy(), devices=2, max_steps=2)
    except RuntimeError as error:
        return str(error)
    return ""


class WithoutRefresh(ShardedStrategy):
    def on_requires_grad_changed(self) -> None:
        pass


def thaw_blocks_under_a_gather_dtype(refresh: bool) -> str:
    strategy = (ShardedStrategy if refresh else WithoutRefresh)(gather_dtype=torch.bfloat16)
    parts = {"patch_embedding": 0, "language_model": 2}
    callbacks: list[Callback] = [StagedUnfreezing(parts)]
    try:
        fit(EveTask(), callbacks, loader=PackedRows, strategy=strategy, devices=2, max_steps=4)
    except RuntimeError as error:
        return str(error)
    return ""


@dataclass(frozen=True)
class Share:
    """What one rank holds and sees."""

    local_rows: int
    rows: int
    data: dict[str, int]


class Look(Callback):
    share: Share

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        weight = pl_module.model.encoder[0].weight  # type: ignore[union-attr, index]
        assert isinstance(weight, DTensor)
        rows = weight.to_local().shape[0], weight.shape[0]
        assert trainer.distributed_sampler_kwargs is not None
        self.share = Share(*rows, trainer.distributed_sampler_kwargs)


def share_of_this_rank() -> Share:
    look = Look()
    fit(Task(), [look], strategy=ShardedStrategy(), devices=2, max_steps=1)
    return look.share


class Follow(Callback):
    """Which samples come, in what order."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.seen += batch[0][:, 0].tolist()


def order_of_a_run(file: Path, directory: Path) -> list[float]:
    """In which order a DataLoader's samples reach this rank through the Trainer of a run."""
    experiment = load(file, ["hardware.devices=2", "hardware.strategy=ddp"])
    kind: Any = SimpleNamespace(experiment=experiment, directory=RunDirectory(directory))
    numbers = torch.arange(12.0)[:, None].expand(-1, 6)
    loader = DataLoader(TensorDataset(numbers, numbers), batch_size=2)
    feed: Any = SimpleNamespace(steps=6, micro_batches=1)
    follow = Follow()
    callbacks = [follow, Checkpoints(directory, every=100)]
    logger: Any = Record()
    make_trainer(kind, "align", feed, callbacks, logger).fit(Task(), loader)
    return follow.seen


def reductions(reduce_every_micro_batch: bool) -> int:
    """Reduce-scatters of two steps of three micro-batches."""
    count = 0
    original = torch.distributed.reduce_scatter_single

    def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal count
        count += 1
        return original(*arguments, **options)

    strategy = ShardedStrategy(reduce_every_micro_batch=reduce_every_micro_batch)
    with patch.object(torch.distributed, "reduce_scatter_single", counted):
        fit(
            Task(),
            [StopOnSignal()],
            strategy=strategy,
            devices=2,
            max_steps=2,
            accumulate_grad_batches=3,
        )
    return count


def save_with_a_full_disk(
    directory: Path, sharded: bool, background: bool, rank: int
) -> tuple[str, int]:
    """One rank's disk is full at step 3, the last; what everybody raises and how far all got."""
    mine = torch.distributed.get_rank() == rank
    task = Task()

    def full(subject: Any, *more: Any) -> Any:
        third = subject["global_step"] == 3 if not sharded else ".step-00000003" in str(subject)
        if third and mine:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return original(subject, *more)

    where, name = (files, "sha256_of") if sharded else (atomic, "_stream")
    original = getattr(where, name)
    strategy: Any = ShardedStrategy(background=background) if sharded else ReplicatedStrategy()
    plugin = AtomicCheckpointIO(background)
    options: dict[str, Any] = {"devices": 2, "max_steps": 3, "plugins": [plugin]}
    with patch.object(where, name, full):
        try:
            fit(task, [Checkpoints(directory, every=1)], strategy=strategy, **options)
        except CheckpointError as error:
            return str(error), task.global_step
    return "", task.global_step


class Die(Callback):
    """Like kill -9 on one rank, in the middle of saving step 4."""

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if trainer.global_step == 4:
            patch.object(files, "sha256_of", self._die).start()

    def _die(self, file: Path) -> str:
        if torch.distributed.get_rank() == 1:
            os._exit(9)
        return "0" * 64


class Signal(Callback):
    """Only one rank gets it, in the middle of a step."""

    def __init__(self, rank: int, step: int) -> None:
        self.rank, self.step = rank, step

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_rank == self.rank and trainer.global_step == self.step:
            signal.raise_signal(signal.SIGTERM)


def signal_on_one_rank(rank: int, directory: Path) -> tuple[int, str]:
    """Where training ended, and by what."""
    stop = StopOnSignal()
    callbacks = [stop, Signal(rank, 3), Checkpoints(directory, every=100)]
    run = fit(
        Task(),
        callbacks,
        strategy=ReplicatedStrategy(),
        devices=2,
        max_steps=50,
        plugins=[AtomicCheckpointIO()],
    )
    return run.global_step, stop.signal.name if stop.signal is not None else ""


class PoisonedTask(Task):
    """Rank one has a loss of NaN at step 2."""

    fused = False

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        bad = self.global_step == 2 and self.global_rank == 1
        return loss * math.nan if bad else loss

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), lr=1e-2, fused=self.fused)


def bad_gradient_on_one_rank(
    sharded: bool, fused: bool, directory: Path
) -> tuple[int, float, bool]:
    """Skipped steps, divergence, and whether all weights are finite."""
    task = PoisonedTask()
    task.fused = fused
    guard = NonFiniteGuard(directory, every=1)
    strategy: Any = ShardedStrategy() if sharded else ReplicatedStrategy()
    fit(task, [guard], strategy=strategy, devices=2, max_steps=5)
    apart = divergence(task)
    return guard.state_dict()["skipped"], apart, math.isfinite(apart)


def built_on_meta() -> tuple[bool, dict[str, Tensor], float]:
    """Whether this rank built on the meta device, the trained weights, the divergence."""
    torch.manual_seed(3)
    meta = builds_on_meta("fsdp")
    with torch.device("meta" if meta else "cpu"):
        task = EveTask()
    fit(task, [], loader=PackedRows, strategy=ShardedStrategy(), devices=2, max_steps=3)
    return meta, gather_weights(task), divergence(task)


class OutsideStep(Callback):
    """Calls parts of the model between steps, as examining does."""

    def __init__(self) -> None:
        self.values: list[Tensor] = []

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        batch = PackedRows().collate([1], [1])
        with usable_weights(pl_module):
            loss = pl_module.model.next_token_loss(batch)  # type: ignore[union-attr, operator]
            self.values.append(loss.total.detach())


def called_outside_a_step(sharded: bool) -> tuple[list[Tensor], dict[str, Tensor]]:
    task, outside = EveTask(), OutsideStep()
    strategy: Any = ShardedStrategy() if sharded else ReplicatedStrategy()
    fit(
        task,
        [outside],
        loader=PackedRows,
        strategy=strategy,
        devices=2,
        max_steps=4,
        validate=True,
        val_check_interval=2,
    )
    return outside.values, gather_weights(task)


def watched() -> dict[str, float]:
    watch = StepWatch(every=4)
    fit(
        EveTask(), [watch], loader=PackedRows, strategy=ReplicatedStrategy(), devices=2, max_steps=4
    )
    return watch.latest


def dropout_masks() -> tuple[dict[str, Tensor], float]:
    """A draw after training on this rank."""
    torch.manual_seed(0)
    task = Task(dropout=0.5)
    fit(task, [RandomState()], strategy=ReplicatedStrategy(), devices=2, max_steps=2)
    return weights(task), float(torch.rand(()))
