"""A run that stops and goes on ends with the very weights of one that never stopped."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lit_eve.checkpoints import AtomicCheckpointIO, Checkpoints, newest
from lit_eve_callbacks.random_state import RandomState
from lit_eve_callbacks.staged_unfreezing import StagedUnfreezing
from lit_eve_callbacks.stop_on_signal import StopOnSignal
from tests.tiny_training import Task, fit, same, weights

STEPS = 14  # two epochs of 6 batches and two more
PARTS = {"decoder": 0, "encoder": 5}


class CrashError(Exception):
    pass


class Crash(Callback):
    """Right after the checkpoint of a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self.step:
            raise CrashError


class Send(Callback):
    """A signal to this process, in the middle of the third optimizer step."""

    def __init__(self, number: signal.Signals) -> None:
        self.number = number

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == 2:
            signal.raise_signal(self.number)
            self.number = signal.SIGUSR1  # a second one of these changes nothing


def run(
    directory: Path,
    every: int = 1,
    crash: int | None = None,
    send: signal.Signals | None = None,
    **options: Any,
) -> Task:
    """Starts, or goes on from the newest checkpoint."""
    torch.manual_seed(3)
    task = Task(dropout=0.3)
    callbacks = [
        StagedUnfreezing(PARTS),
        RandomState(),
        StopOnSignal(),
        Checkpoints(directory, every=every),
        *([Crash(crash)] if crash is not None else []),
        *([Send(send)] if send is not None else []),
    ]
    io = AtomicCheckpointIO(options.pop("background", False))
    options = {"max_steps": STEPS, "resume": newest(directory), "plugins": [io]} | options
    with contextlib.suppress(CrashError):
        fit(task, callbacks, **options)
    return task


# Before, at and after the thaw (5), inside and at the end of an epoch (6), at a validation (4).
@pytest.mark.parametrize("step", [1, 4, 5, 6, 7, 12, 13])
def test_resume_at_any_step_is_bit_equal(step: int, tmp_path: Path) -> None:
    options: dict[str, Any] = {"validate": True, "val_check_interval": 4}
    straight = run(tmp_path / "straight", **options)
    run(tmp_path / "twice", crash=step, **options)
    resumed = run(tmp_path / "twice", **options)
    assert same(weights(straight), weights(resumed))
    assert resumed.losses == straight.losses[step:]


def test_resume_is_bit_equal_with_accumulation_clipping_and_background_saving(
    tmp_path: Path,
) -> None:
    options: dict[str, Any] = {
        "accumulate_grad_batches": 2,
        "gradient_clip_val": 0.1,
        "max_steps": 9,
        "background": True,
    }
    straight = run(tmp_path / "straight", **options)
    run(tmp_path / "twice", crash=5, **options)
    assert same(weights(straight), weights(run(tmp_path / "twice", **options)))


def test_validation_does_not_move_the_random_numbers_of_training(tmp_path: Path) -> None:
    often = run(tmp_path / "often", validate=True, val_check_interval=2)
    never = run(tmp_path / "never")
    assert same(weights(often), weights(never))


def test_a_checkpoint_from_just_before_a_validation_resumes_exactly(tmp_path: Path) -> None:
    class BreakValidation(Callback):
        def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
            raise CrashError

    options: dict[str, Any] = {"validate": True, "val_check_interval": 5, "every": 100}
    straight = run(tmp_path / "straight", **options)
    task = Task(dropout=0.3)
    directory = tmp_path / "twice"
    callbacks = [StagedUnfreezing(PARTS), RandomState(), Checkpoints(directory, every=100)]
    with pytest.raises(CrashError):
        fit(
            task,
            [*callbacks, BreakValidation()],
            validate=True,
            val_check_interval=5,
            max_steps=STEPS,
            plugins=[AtomicCheckpointIO()],
        )
    checkpoint = newest(directory)
    assert checkpoint is not None
    assert checkpoint.name == "step-00000005.ckpt"
    assert same(weights(straight), weights(run(directory, **options)))


VICTIM = """
import sys, time
from pathlib import Path
from lightning.pytorch import Callback
from tests import test_resume

class Slow(Callback):
    def on_train_batch_end(self, trainer, *arguments):
        print(trainer.global_step, flush=True)
        time.sleep(0.02)

test_resume.Crash = lambda step: Slow()
test_resume.run(Path(sys.argv[1]), crash=0)
"""


def test_a_killed_run_resumes_bit_equal(tmp_path: Path) -> None:
    root = Path(__file__).parents[1]
    path = os.pathsep.join(map(str, [root, root / "callbacks", root / "data"]))
    victim = subprocess.Popen(
        [sys.executable, "-c", VICTIM, str(tmp_path / "twice")],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
    )
    assert victim.stdout is not None
    step = next(int(line) for line in victim.stdout if line.strip() == "4")
    victim.kill()
    victim.communicate(timeout=60)
    assert victim.returncode == -signal.SIGKILL
    checkpoint = newest(tmp_path / "twice")
    assert checkpoint is not None
    assert checkpoint.name >= f"step-{step - 1:08d}.ckpt"
    resumed = run(tmp_path / "twice")
    assert same(weights(run(tmp_path / "straight")), weights(resumed))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_run_stopped_by_a_signal_resumes_bit_equal(
    number: signal.Signals, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"every": 100, "accumulate_grad_batches": 2, "max_steps": 7}
    straight = run(tmp_path / "straight", **options)
    run(tmp_path / "twice", send=number, **options)
    checkpoint = newest(tmp_path / "twice")
    assert checkpoint is not None
    assert checkpoint.name == "step-00000003.ckpt"  # sent in the middle of the third step
    assert same(weights(straight), weights(run(tmp_path / "twice", **options)))
