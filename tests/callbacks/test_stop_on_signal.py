from __future__ import annotations

import signal
from typing import Any

import pytest
from lightning.pytorch import Callback, LightningModule, Trainer

from lit_eve_callbacks.stop_on_signal import StopOnSignal, Stopped
from tests.tiny_training import Task, fit


class Raise(Callback):
    """Signals to this process at the start of a batch."""

    def __init__(self, batch: int, *numbers: signal.Signals) -> None:
        self.batch, self.numbers = batch, numbers

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if trainer.fit_loop.total_batch_idx == self.batch:
            for number in self.numbers:
                signal.raise_signal(number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_finishes_the_step_and_is_remembered(number: signal.Signals) -> None:
    stop = StopOnSignal()
    run = fit(Task(), [stop, Raise(3, number)], max_steps=20)
    assert run.global_step == 4
    assert stop.signal is number


def test_without_a_signal_nothing_is_remembered() -> None:
    stop = StopOnSignal()
    assert fit(Task(), [stop], max_steps=3).global_step == 3
    assert stop.signal is None


def test_with_accumulation_the_whole_optimizer_step_is_finished() -> None:
    stop = StopOnSignal()
    task = Task()
    run = fit(
        task, [stop, Raise(3, signal.SIGTERM)], max_steps=9, max_epochs=9, accumulate_grad_batches=3
    )
    assert run.global_step == 2
    assert len(task.losses) == 6


def test_no_validation_follows_a_signal() -> None:
    validated = []

    class Watch(Callback):
        def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
            validated.append(trainer.global_step)

    options: dict[str, Any] = {"validate": True, "val_check_interval": 2, "max_steps": 20}
    run = fit(Task(), [StopOnSignal(), Raise(3, signal.SIGTERM), Watch()], **options)
    assert validated == [2]
    assert run.limit_val_batches == 2


def test_a_signal_during_validation_leaves_at_once() -> None:
    class InValidation(Callback):
        def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
            signal.raise_signal(signal.SIGTERM)

    stop = StopOnSignal()
    task = Task()
    with pytest.raises(Stopped, match="SIGTERM during validation after step 2"):
        fit(task, [stop, InValidation()], validate=True, val_check_interval=2, max_steps=20)
    assert len(task.losses) == 2
    assert stop.signal is signal.SIGTERM


def test_a_second_ctrl_c_does_not_wait() -> None:
    task = Task()
    with pytest.raises(SystemExit):  # Lightning's answer to a KeyboardInterrupt
        fit(task, [StopOnSignal(), Raise(3, signal.SIGINT, signal.SIGINT)], max_steps=20)
    assert len(task.losses) == 3


def test_a_second_sigterm_changes_nothing() -> None:
    stop = StopOnSignal()
    run = fit(Task(), [stop, Raise(3, signal.SIGTERM, signal.SIGTERM)], max_steps=20)
    assert run.global_step == 4


class _Break(Exception):  # noqa: N818
    pass


class Break(Callback):
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *arguments: Any
    ) -> None:
        raise _Break


@pytest.mark.parametrize("broken", [False, True])
def test_handlers_are_given_back(broken: bool) -> None:
    def mine(number: int, frame: object) -> None:
        pass

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGUSR1, mine)
    try:
        if broken:
            with pytest.raises(_Break):
                fit(Task(), [StopOnSignal(), Break()], max_steps=2)
        else:
            fit(Task(), [StopOnSignal()], max_steps=2)
        assert signal.getsignal(signal.SIGUSR1) is mine
        assert {number: signal.getsignal(number) for number in before} == before
    finally:
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)


def test_it_says_what_it_does(caplog: pytest.LogCaptureFixture) -> None:
    fit(Task(), [StopOnSignal(), Raise(1, signal.SIGINT)], max_steps=5)
    assert caplog.messages == [
        "SIGINT: finishing this step, then saving and stopping (Ctrl-C once more stops at once)."
    ]
