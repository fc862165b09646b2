"""When checkpoints are written during a training, and which stay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback, LightningModule, Trainer

from lit_eve.checkpoints import AtomicCheckpointIO, CheckpointError, Checkpoints, atomic, files
from tests.tiny_training import Task, fit


def train(directory: Path, *more: Callback, **options: Any) -> Trainer:
    chosen = {name: options.pop(name) for name in ("keep", "best", "mode") if name in options}
    every = options.pop("every", 3)
    callbacks = [*more, Checkpoints(directory, every, **chosen)]
    settings: dict[str, Any] = {"max_steps": 10, "plugins": [AtomicCheckpointIO()]}
    return fit(Task(), callbacks, **(settings | options))


def steps(directory: Path) -> list[int]:
    return sorted(int(path.stem.removeprefix("step-")) for path in directory.glob("*.ckpt"))


def test_it_saves_every_n_steps_and_the_last_one_and_keeps_two(tmp_path: Path) -> None:
    train(tmp_path)
    assert steps(tmp_path) == [9, 10]


def test_it_saves_the_last_step_of_the_last_epoch(tmp_path: Path) -> None:
    train(tmp_path, max_steps=-1, max_epochs=2, every=100)
    assert steps(tmp_path) == [12]


def test_it_counts_optimizer_steps_not_batches(tmp_path: Path) -> None:
    train(tmp_path, accumulate_grad_batches=2, max_steps=7, every=2, keep=9)
    assert steps(tmp_path) == [2, 4, 6, 7]


def test_it_saves_before_validation_so_that_a_broken_one_costs_nothing(tmp_path: Path) -> None:
    train(tmp_path, every=100, keep=9, validate=True, val_check_interval=4)
    assert steps(tmp_path) == [4, 8, 10]


class ScoreByStep(Callback):
    """A metric with its best value after step 4."""

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        pl_module.log("val/score", -abs(trainer.global_step - 4.0))


def test_the_best_checkpoint_stays_and_is_on_record(tmp_path: Path) -> None:
    train(
        tmp_path,
        ScoreByStep(),
        every=2,
        keep=1,
        best="val/score",
        mode="max",
        validate=True,
        val_check_interval=2,
    )
    assert steps(tmp_path) == [4, 10]
    assert files.read_best(tmp_path) == files.Best("step-00000004.ckpt", "val/score", 0.0)


def test_an_unlogged_metric_is_refused_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'val/scor'.*Choose one of val/loss"):
        train(tmp_path, best="val/scor", validate=True, val_check_interval=2)


def test_training_survives_a_disk_that_is_full_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write = atomic.write_checkpoint

    def full_at_six(checkpoint: dict[str, Any], path: Path) -> None:
        if checkpoint["global_step"] == 6:
            raise CheckpointError("the disk is full.")
        write(checkpoint, path)

    monkeypatch.setattr(atomic, "write_checkpoint", full_at_six)
    train(tmp_path, keep=9)
    assert steps(tmp_path) == [3, 9, 10]
    assert "the disk is full. Training goes on" in caplog.text


def test_training_does_not_claim_success_if_the_last_checkpoint_fails(
    tmp_path: Path, full_disk: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CheckpointError, match="make room"):
        train(tmp_path)


def test_impossible_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="both must be at least 1"):
        Checkpoints("anywhere", every=0)
