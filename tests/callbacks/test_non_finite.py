from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lit_eve_callbacks.non_finite import NonFiniteError, NonFiniteGuard, gradient_norm, plain
from tests.tiny_training import Record, Task, fit, same, weights


class Poisoned(Task):
    """Some steps have a loss of NaN, or a gradient with an infinity under a finite loss."""

    def __init__(self, nan: set[int] = frozenset(), fused: bool = False) -> None:  # type: ignore[assignment]
        super().__init__(dropout=0.0)
        self.nan, self.fused = nan, fused
        self.history: list[dict[str, Tensor]] = []

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        self.history.append(weights(self))
        loss = super().training_step(batch, batch_idx)
        return loss * math.nan if self.global_step in self.nan else loss

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), lr=1e-2, fused=self.fused)


@pytest.mark.parametrize("fused", [False, True])
def test_a_bad_step_moves_no_weight_and_the_next_ones_do(tmp_path: Path, fused: bool) -> None:
    task = Poisoned({2}, fused)
    fit(task, [NonFiniteGuard(tmp_path)], max_steps=5, gradient_clip_val=1.0)
    before, bad, after = task.history[2:5]
    assert same(before, bad)
    assert not same(bad, after)
    assert all(torch.isfinite(value).all() for value in weights(task).values())


@pytest.mark.parametrize("fused", [False, True])
def test_a_skipped_step_leaves_no_trace_in_the_optimizer(tmp_path: Path, fused: bool) -> None:
    task = Poisoned({1}, fused)
    run = fit(task, [NonFiniteGuard(tmp_path)], max_steps=4)
    counts = {float(state["step"]) for state in run.optimizers[0].state.values()}
    assert counts == {3.0}


def test_finite_training_is_not_touched(tmp_path: Path) -> None:
    with_guard, without = Task(), Task()
    fit(with_guard, [NonFiniteGuard(tmp_path)], max_steps=4)
    fit(without, [], max_steps=4)
    assert same(weights(with_guard), weights(without))


def test_skipped_steps_are_counted_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    record = Record("train/skipped")
    guard = NonFiniteGuard(tmp_path)
    with caplog.at_level(logging.WARNING):
        fit(Poisoned({1, 3}), [guard], max_steps=6, logger=record, log_every_n_steps=1)
    assert record.lines == [(1, {"train/skipped_steps": 1}), (3, {"train/skipped_steps": 2})]
    assert "step 3: the gradient is not finite, the step is skipped (2 so far)." in caplog.messages
    assert guard.state_dict() == {"skipped": 2}


def test_the_count_goes_on_after_a_resume(tmp_path: Path) -> None:
    guard = NonFiniteGuard(tmp_path)
    guard.load_state_dict({"skipped": 4})
    assert guard.state_dict() == {"skipped": 4}
    fit(Poisoned({0}), [guard], max_steps=2)
    assert guard.state_dict() == {"skipped": 5}


@pytest.mark.parametrize("fused", [False, True])
def test_too_many_in_a_row_end_the_run_with_the_batch_saved(tmp_path: Path, fused: bool) -> None:
    task = Poisoned({1, 3, 4, 5, 6, 7}, fused)
    with pytest.raises(NonFiniteError, match=r"3 steps in a row up to step 5.*Lower the learning"):
        fit(task, [NonFiniteGuard(tmp_path, patience=3, every=1)], max_steps=9)
    (file,) = tmp_path.iterdir()
    assert file.name == "non-finite-step-00000005-rank-0.pt"
    inputs, targets = torch.load(file, weights_only=True)
    assert inputs.shape == targets.shape == (4, 6)


def test_a_folder_that_cannot_be_written_does_not_hide_the_reason(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    task = Poisoned({0, 1})
    with pytest.raises(NonFiniteError, match="could not be saved"):
        fit(task, [NonFiniteGuard(tmp_path / "file", patience=1)], max_steps=2)


def test_an_infinite_gradient_under_a_finite_loss_is_found() -> None:
    parameter = torch.nn.Parameter(torch.zeros(3))
    parameter.grad = torch.tensor([1.0, math.inf, 0.0])
    norm = gradient_norm([parameter])
    assert norm is not None
    assert not torch.isfinite(norm)


def test_the_gradient_norm_is_that_of_all_parameters_together() -> None:
    parameters = [torch.nn.Parameter(torch.zeros(2)) for _ in range(3)]
    parameters[0].grad = torch.tensor([3.0, 0.0])
    parameters[2].grad = torch.tensor([0.0, 4.0])
    assert float(gradient_norm(parameters) or 0) == 5.0
    assert gradient_norm(parameters[1:2]) is None


def test_any_batch_becomes_plain_values() -> None:
    @dataclass
    class Inner:
        tensor: Tensor

    value = plain({"a": Inner(torch.ones(1)), "b": (1, "x", None), "c": Path("/p")})
    assert value["a"]["tensor"].item() == 1
    assert value["b"] == [1, "x", None]
    assert isinstance(value["c"], str)


def test_impossible_numbers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must both be at least 1"):
        NonFiniteGuard(tmp_path, patience=0)
