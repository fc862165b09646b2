"""Trains, breaks the training at a random moment, resumes, and compares with a run left alone.

    python -m benchmarks.faults --tries 10

Survived means: nothing older than one checkpoint interval was lost, every checkpoint that was used
was whole, and the resumed run ended with the weights of the undisturbed one: bit-equal on one
process, within 1e-6 on two.
"""

from __future__ import annotations

import argparse
import multiprocessing
import multiprocessing.forkserver
import os
import random
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import psutil
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lit_eve.checkpoints import files, newest
from lit_eve_callbacks.non_finite import NonFiniteGuard
from tests.rank_pool import environment, free_port
from tests.rank_scenarios import Plan, difference, train
from tests.tiny_training import Task

STEPS, EVERY = 40, 5
LOOK = 0.003
"""Seconds between two looks at a training: a step or a save takes longer, and looking takes CPU."""
TOLERANCE = {1: 0.0, 2: 1e-6}
Fault = Callable[["Attempt"], None]


class HeavyTask(Task):
    """Takes some time to save: 8 MiB that nothing uses. Some steps take some time too."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__(dropout)
        self.register_buffer("ballast", torch.zeros(2**21))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        time.sleep(0.005)
        return super().training_step(batch, batch_idx)


class Progress(Callback):
    """Writes how far training has come, and what it ended with."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *arguments: Any
    ) -> None:
        if trainer.is_global_zero:
            (self.directory / "progress").write_text(str(trainer.global_step))


class FullDisk(Callback):
    """Nothing larger than 64 KiB can be written between two steps."""

    def __init__(self, first: int, last: int) -> None:
        self.first, self.last = first, last

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        full = self.first <= trainer.global_step < self.last
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**16 if full else hard, hard))


class BadBatch(Callback):
    """Poisons the batch of one step on one rank."""

    def __init__(self, step: int, rank: int) -> None:
        self.step, self.rank = step, rank

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self.step and trainer.global_rank == self.rank:
            batch[0].fill_(float("nan"))


def work(plan: Plan, rank: int, size: int, port: int, result: Path) -> None:
    """One rank of one run."""
    if size > 1:
        os.environ.update(environment(rank, size, port))
        torch.distributed.init_process_group("gloo")
    torch.set_num_threads(1)
    weights = train(plan).weights
    if rank == 0:
        torch.save(weights, result.with_suffix(".part"))
        os.replace(result.with_suffix(".part"), result)
    os._exit(0)


@dataclass
class Attempt:
    """One run that something happens to."""

    plan: Plan
    size: int
    directory: Path
    chance: random.Random
    ranks: list[BaseProcess]

    def start(self, *callbacks: Callback) -> None:
        """Start all ranks."""
        context = multiprocessing.get_context("forkserver")
        plan = replace(self.plan, callbacks=(Progress(self.directory), *callbacks))
        port = free_port()
        result = self.directory / "weights"
        self.ranks = [
            context.Process(target=work, args=(plan, rank, self.size, port, result))
            for rank in range(self.size)
        ]
        for process in self.ranks:
            process.start()

    def step(self) -> int:
        """How far it has come."""
        try:
            return int((self.directory / "progress").read_text() or 0)
        except (OSError, ValueError):
            return 0

    def wait_for_some_step(self) -> None:
        """Until a random step, and a little longer."""
        target = self.chance.randrange(EVERY + 1, STEPS - 2)
        while self.step() < target and self.alive():
            time.sleep(LOOK)
        time.sleep(self.chance.random() * 0.02)

    def alive(self) -> bool:
        """Whether any rank still runs."""
        return any(process.is_alive() for process in self.ranks)

    def signal(self, number: int, *ranks: int) -> None:
        """To some ranks, or to all."""
        for rank in ranks or range(self.size):
            pid = self.ranks[rank].pid
            if pid is not None and self.ranks[rank].is_alive():
                os.kill(pid, number)

    def finish(self, seconds: float) -> list[int | None]:
        """Exit codes; what is left after `seconds` is killed, as a launcher would."""
        end = time.monotonic() + seconds
        for process in self.ranks:
            process.join(max(0.0, end - time.monotonic()))
        codes = [process.exitcode for process in self.ranks]
        self.signal(signal.SIGKILL)
        for process in self.ranks:
            process.join()
        return codes


def kill_all(attempt: Attempt) -> None:
    """kill -9 of every rank at a random moment."""
    attempt.start()
    attempt.wait_for_some_step()
    attempt.signal(signal.SIGKILL)
    attempt.finish(5)


def kill_one(attempt: Attempt) -> None:
    """kill -9 of one rank; the launcher ends the rest."""
    attempt.start()
    attempt.wait_for_some_step()
    attempt.signal(signal.SIGKILL, attempt.chance.randrange(attempt.size))
    attempt.finish(1)


def kill_saver(attempt: Attempt) -> None:
    """kill -9 of every rank while a checkpoint is being written."""
    attempt.start()
    target = attempt.chance.randrange(1, STEPS // EVERY - 1) * EVERY
    pattern = f".{files.checkpoint_name(target)}.tmp-*"
    checkpoints = attempt.directory / "checkpoints"
    while attempt.alive() and not any(checkpoints.glob(pattern)):
        time.sleep(LOOK)
    time.sleep(attempt.chance.random() * 0.02)
    attempt.signal(signal.SIGKILL)
    attempt.finish(5)


def terminate_all(attempt: Attempt) -> None:
    """SIGTERM to every rank, as SLURM sends it."""
    attempt.start()
    attempt.wait_for_some_step()
    attempt.signal(signal.SIGTERM)
    stopped_in_order(attempt)


def terminate_one(attempt: Attempt) -> None:
    """SIGTERM to one rank."""
    attempt.start()
    attempt.wait_for_some_step()
    attempt.signal(signal.SIGTERM, attempt.chance.randrange(attempt.size))
    stopped_in_order(attempt)


def full_disk(attempt: Attempt) -> None:
    """No checkpoint can be written for a while; training goes on, then all ranks are killed."""
    first = attempt.chance.randrange(EVERY + 1, STEPS - 3 * EVERY)
    attempt.start(FullDisk(first, first + EVERY))
    while attempt.alive() and attempt.step() < first + 2 * EVERY + 1:
        time.sleep(LOOK)
    attempt.signal(signal.SIGKILL)
    attempt.finish(5)


def stopped_in_order(attempt: Attempt) -> None:
    """A signal loses nothing and every rank leaves by itself."""
    codes = attempt.finish(60)
    if any(codes):
        raise AssertionError(f"exit codes {codes}")
    if attempt.step() != saved_step(attempt):
        raise AssertionError(f"stopped at {attempt.step()}, saved {saved_step(attempt)}")


def saved_step(attempt: Attempt) -> int:
    """Step of the newest whole checkpoint."""
    checkpoint = newest(attempt.directory / "checkpoints", report=lambda message: None)
    return files.read_manifest(checkpoint).step if checkpoint is not None else 0


FAULTS: dict[str, tuple[Fault, tuple[int, ...]]] = {
    "kill -9 of all": (kill_all, (1, 2)),
    "kill -9 of one rank": (kill_one, (2,)),
    "kill -9 while saving": (kill_saver, (1, 2)),
    "SIGTERM to all": (terminate_all, (1, 2)),
    "SIGTERM to one rank": (terminate_one, (2,)),
    "full disk, then kill -9": (full_disk, (1, 2)),
}
STRATEGIES: dict[int, tuple[str, ...]] = {1: ("auto",), 2: ("ddp", "fsdp")}


def undisturbed(plan: Plan, size: int, root: Path) -> dict[str, Tensor]:
    """The weights to reach."""
    attempt = Attempt(plan, size, root, random.Random(0), [])
    root.mkdir()
    attempt.start()
    if any(attempt.finish(300)):
        raise RuntimeError("the undisturbed run failed: nothing can be compared")
    return dict(torch.load(root / "weights", weights_only=True))


def survive(
    fault: Fault, plan: Plan, size: int, root: Path, seed: int, target: dict[str, Tensor]
) -> tuple[int, float]:
    """Steps lost, and the difference in the end.

    Raises:
        AssertionError: if it did not survive.
    """
    root.mkdir()
    plan = replace(plan, directory=root / "checkpoints")
    attempt = Attempt(plan, size, root, random.Random(seed), [])
    fault(attempt)
    lost = attempt.step() - saved_step(attempt)
    allowed = 2 * EVERY if fault is full_disk else EVERY
    # The step in flight is finished but not yet written down when a kill comes.
    if lost > allowed:
        raise AssertionError(f"{lost} steps lost")
    (root / "weights").unlink(missing_ok=True)
    attempt.start()
    codes = attempt.finish(300)
    if any(codes):
        raise AssertionError(f"the resumed run ended with {codes}")
    apart = difference(target, torch.load(root / "weights", weights_only=True))
    if apart > TOLERANCE[size]:
        raise AssertionError(f"weights differ by {apart:.1e}")
    return max(lost, 0), apart


def bad_batches(strategy: str, size: int, root: Path, tries: int) -> int:
    """Runs with a NaN batch that end with finite weights."""
    survived = 0
    for number in range(tries):
        chance = random.Random(number)
        directory = root / f"nan-{strategy}-{number}"
        directory.mkdir()
        plan = Plan(strategy, STEPS, task=HeavyTask)  # type: ignore[arg-type]
        attempt = Attempt(plan, size, directory, chance, [])
        poison = BadBatch(chance.randrange(1, STEPS - 1), chance.randrange(size))
        attempt.start(NonFiniteGuard(directory), poison)
        codes = attempt.finish(300)
        if not any(codes):
            weights = torch.load(directory / "weights", weights_only=True)
            survived += all(bool(torch.isfinite(value).all()) for value in weights.values())
    return survived


def main() -> int:
    """Print survived / tried for every fault; the exit code is the number that did not survive."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--tries", type=int, default=10)
    parser.add_argument("--only", choices=[*FAULTS, "NaN batch"], default=None)
    options = parser.parse_args()
    multiprocessing.set_forkserver_preload(["tests.rank_scenarios"])
    failed = 0
    print(f"{'fault':<26}{'ranks':>6}{'strategy':>10}{'survived':>10}{'lost':>6}{'apart':>9}")
    with tempfile.TemporaryDirectory(prefix="faults-") as name:
        root = Path(name)
        for size, strategies in STRATEGIES.items():
            for strategy in strategies:
                failed += table(root, size, strategy, options.tries, options.only)
    print(f"{cpu_seconds() / 60:.1f} CPU minutes")
    return failed


def cpu_seconds() -> float:
    """Of this process, the one whose forks the ranks are, and the ranks, also those killed."""
    server = psutil.Process(multiprocessing.forkserver._forkserver._forkserver_pid)  # type: ignore[attr-defined]
    return sum(sum(process.cpu_times()[:4]) for process in (psutil.Process(), server))


def table(root: Path, size: int, strategy: str, tries: int, only: str | None) -> int:
    """All faults of one form of run."""
    plan = Plan(
        strategy,  # type: ignore[arg-type]
        STEPS,
        parts={"decoder": 0, "encoder": STEPS // 2},
        dropout=0.3,
        task=HeavyTask,
        every=EVERY,
        keep=2,
    )
    target = undisturbed(plan, size, root / f"{strategy}-{size}")
    failed = 0
    for label, (fault, sizes) in FAULTS.items():
        if size not in sizes or only not in (None, label):
            continue
        results: list[tuple[int, float]] = []
        for number in range(tries):
            directory = root / f"{strategy}-{fault.__name__}-{number}"
            try:
                results.append(survive(fault, plan, size, directory, number, target))
            except AssertionError as error:
                print(f"  {label}, try {number}: {error}", file=sys.stderr)
        failed += tries - len(results)
        lost = max((entry[0] for entry in results), default=0)
        apart = max((entry[1] for entry in results), default=0.0)
        shown = f"{len(results)}/{tries}"
        print(f"{label:<26}{size:>6}{strategy:>10}{shown:>10}{lost:>6}{apart:>9.0e}", flush=True)
    if only in (None, "NaN batch"):
        survived = bad_batches(strategy, size, root, tries)
        failed += tries - survived
        shown = f"{survived}/{tries}"
        print(f"{'NaN batch':<26}{size:>6}{strategy:>10}{shown:>10}{'-':>6}{'-':>9}", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
