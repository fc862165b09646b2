from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import SingleDeviceStrategy

from lit_eve_callbacks.staged_unfreezing import StagedUnfreezing, check_parts, thaw_step, trains
from tests.tiny_training import Task, fit, weights

PARTS = {"decoder": 0, "encoder": 3, "encoder.1": 1}


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("decoder.0.weight", 0),
        ("encoder.0.weight", 3),
        ("encoder.1.weight", 1),  # the most specific part decides
        ("encoder.10.weight", 3),  # a part ends at a dot
        ("encoders.weight", None),
        ("head", None),
    ],
)
def test_the_most_specific_part_decides_when_a_parameter_thaws(name: str, step: int | None) -> None:
    assert thaw_step(name, PARTS) == step


def test_a_parameter_trains_from_its_step_on_and_unlisted_ones_never() -> None:
    assert [trains("encoder.0.weight", PARTS, step) for step in (0, 2, 3, 9)] == [
        False,
        False,
        True,
        True,
    ]
    assert not trains("head", PARTS, 10**9)


class Record(Callback):
    """Names that have a gradient after each backward pass."""

    def __init__(self) -> None:
        self.trained: list[set[str]] = []

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Any
    ) -> None:
        names = {name for name, p in pl_module.named_parameters() if p.grad is not None}
        self.trained.append({".".join(name.split(".")[1:3]) for name in names})


def test_each_part_gets_gradients_from_its_step_on() -> None:
    record = Record()
    fit(Task(), [StagedUnfreezing(PARTS), record], max_steps=5)
    decoder = {"decoder.0", "decoder.2"}
    early, late = decoder | {"encoder.1"}, decoder | {"encoder.0", "encoder.1"}
    assert record.trained == [decoder, early, early, late, late]


def test_with_accumulation_a_part_thaws_with_the_optimizer_step_not_the_batch() -> None:
    record = Record()
    parts = {"decoder": 0, "encoder": 2}
    fit(Task(), [StagedUnfreezing(parts), record], max_steps=4, accumulate_grad_batches=3)
    assert ["encoder.0" in names for names in record.trained] == [False, False, True, True]


def test_frozen_parts_do_not_move_not_even_by_weight_decay() -> None:
    task = Task()
    before = weights(task)
    fit(task, [StagedUnfreezing({"decoder": 0})], max_steps=3)
    moved = {name for name, value in weights(task).items() if not torch.equal(value, before[name])}
    assert {name.split(".")[1] for name in moved} == {"decoder"}


def test_the_strategy_is_told_at_the_thaw_and_only_then() -> None:
    class Strategy(SingleDeviceStrategy):
        told: list[int]

        def on_requires_grad_changed(self) -> None:
            assert self.lightning_module is not None
            self.told.append(self.lightning_module.global_step)

    strategy = Strategy(torch.device("cpu"))
    strategy.told = []
    parts = {"decoder": 0, "encoder": 3}
    fit(Task(), [StagedUnfreezing(parts)], strategy=strategy, max_steps=5)
    assert strategy.told == [3]


def test_it_says_what_trains_and_what_follows(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "lit_eve_callbacks"):
        fit(Task(), [StagedUnfreezing({"decoder": 0, "encoder": 3})], max_steps=4)
    # decoder 2 x (6 x 6 + 6) = 84; encoder 6 x 6 + 6 + 6 + 6 = 54
    assert caplog.messages == [
        "step 0: training decoder (84 of 138 parameters); thawing encoder at 3",
        "step 3: training decoder, encoder (138 of 138 parameters)",
    ]


@pytest.mark.parametrize(
    ("parts", "advice"),
    [
        ({"decoder": 0, "encodr": 1}, r"'encodr' is not in the model.*Nearest: encoder"),
        ({"decoder": 0, "encoder.2.weight": 1}, "Nearest: encoder"),
        ({"decoder": -1}, "steps count from 0"),
        ({"decoder": 1}, "at least one part under `train:` thaw at 0"),
        ({}, "at least one part under `train:` thaw at 0"),
    ],
)
def test_a_part_that_could_not_learn_is_an_error(parts: dict[str, int], advice: str) -> None:
    names = [name for name, _ in Task().model.named_parameters()]
    with pytest.raises(ValueError, match=advice):
        check_parts(names, parts)


def test_a_wrong_part_stops_before_the_first_step() -> None:
    task = Task()
    with pytest.raises(ValueError, match="Nearest: decoder"):
        fit(task, [StagedUnfreezing({"decodr": 0})], max_steps=1)
    assert task.losses == []


def test_a_task_without_a_model_is_refused() -> None:
    task = Task()
    task.model = None  # type: ignore[assignment]
    callback = StagedUnfreezing({"decoder": 0})
    with pytest.raises(TypeError, match="nothing to thaw"):
        callback.on_fit_start(Trainer(logger=False, enable_checkpointing=False), task)
