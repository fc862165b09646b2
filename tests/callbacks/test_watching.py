from __future__ import annotations

import gzip
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback, LightningModule, Trainer

from lit_eve_callbacks.gradient_norms import GradientNorms
from lit_eve_callbacks.profile_steps import ProfileSteps
from lit_eve_callbacks.staged_unfreezing import StagedUnfreezing
from lit_eve_callbacks.stuck_rank import StuckRank
from tests.tiny_training import Record, Task, fit


class Independent(Callback):
    """Norms by a plain sum in float64, by first name in the model."""

    def __init__(self) -> None:
        self.norms: list[dict[str, float]] = []

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Any
    ) -> None:
        squares: dict[str, float] = {}
        for name, parameter in pl_module.named_parameters():
            if parameter.grad is not None:
                part = name.split(".")[1]
                total = sum(value**2 for value in parameter.grad.double().flatten().tolist())
                squares[part] = squares.get(part, 0.0) + total
        self.norms.append({part: square**0.5 for part, square in squares.items()})


def test_gradient_norms_are_reported_whole_and_per_part() -> None:
    record, independent = Record("optim/"), Independent()
    norms = GradientNorms(["encoder", "decoder"], every=2)
    callbacks = [StagedUnfreezing({"decoder": 0, "encoder": 3}), norms, independent]
    fit(Task(), callbacks, max_steps=4, logger=record, gradient_clip_val=1e-3, log_every_n_steps=1)
    early, late = independent.norms[1], independent.norms[3]
    assert [step for step, _ in record.lines] == [2, 4]
    assert record.lines[0][1] == pytest.approx(
        {
            "optim/gradient_norm": early["decoder"],
            "optim/gradient_norm/decoder": early["decoder"],
        }
    )
    assert record.lines[1][1] == pytest.approx(
        {
            "optim/gradient_norm": (late["decoder"] ** 2 + late["encoder"] ** 2) ** 0.5,
            "optim/gradient_norm/decoder": late["decoder"],
            "optim/gradient_norm/encoder": late["encoder"],
        }
    )


def test_an_impossible_interval_is_refused() -> None:
    with pytest.raises(ValueError, match="give 1 or more"):
        GradientNorms([], every=0)


@pytest.mark.filterwarnings("ignore:.*Profiler")
def test_a_trace_holds_the_steps_that_were_asked_for(tmp_path: Path) -> None:
    fit(Task(), [ProfileSteps(2, 4, tmp_path)], max_steps=6)
    with gzip.open(tmp_path / "trace-steps-2-4.json.gz") as stream:
        events = json.load(stream)["traceEvents"]
    steps = [event for event in events if event.get("name") == "Optimizer.step#AdamW.step"]
    assert len(steps) == 2


@pytest.mark.filterwarnings("ignore:.*Profiler")
def test_a_trace_is_written_if_training_ends_early_and_never_twice(tmp_path: Path) -> None:
    fit(Task(), [ProfileSteps(1, 50, tmp_path)], max_steps=3)
    (file,) = tmp_path.iterdir()
    written = file.stat().st_mtime_ns
    fit(Task(), [ProfileSteps(1, 50, tmp_path)], max_steps=3)
    assert file.stat().st_mtime_ns == written


def test_a_profile_of_no_steps_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the second larger"):
        ProfileSteps(5, 5, tmp_path)


def test_a_run_that_goes_on_is_left_alone() -> None:
    class Slow(Callback):
        def on_train_batch_end(self, *arguments: Any) -> None:
            time.sleep(0.02)

    watcher = StuckRank(seconds=0.2)
    fit(Task(), [watcher, Slow()], max_steps=15)  # longer than the limit in all
    assert watcher._thread is None


@pytest.mark.parametrize("validate", [False, True])
def test_validation_is_progress_too(validate: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    watcher = StuckRank(seconds=5)
    options: dict[str, Any] = {"validate": validate, "val_check_interval": 2} if validate else {}
    fit(Task(), [watcher], max_steps=2, **options)
    expected = "in validation after step 2" if validate else "after step 2"
    assert watcher._where == expected
    assert ended == []


class WaitForEver(Callback):
    """Almost."""

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        time.sleep(0.6 if trainer.global_step == 2 else 0)


def test_a_run_that_stands_still_says_where_and_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)  # a process that really ends tests nothing more
    with (tmp_path / "stacks").open("w+") as stacks:
        fit(Task(), [StuckRank(0.2, stacks), WaitForEver()], max_steps=4)
        stacks.seek(0)
        assert "in on_train_batch_start" in stacks.read()
    assert set(ended) == {75}
    assert "rank 0 has stood still for 0 s after step 2" in caplog.messages[0]


def test_an_impossible_limit_is_refused() -> None:
    with pytest.raises(ValueError, match="would end every run"):
        StuckRank(0)
