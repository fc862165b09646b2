from __future__ import annotations

import io
import random
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lit_eve_callbacks.random_state import KEY, RandomState, _of_rank, capture, restore
from tests.tiny_training import Task, fit, same, weights


def draws() -> tuple[float, float, float, float]:
    gauss = float(np.random.normal())  # NumPy keeps a second normal number back
    return random.random(), random.gauss(0, 1), gauss, float(torch.rand(()))


def test_all_generators_go_on_from_a_captured_state() -> None:
    draws()
    state = capture()
    first = [draws() for _ in range(3)]
    restore(state)
    assert [draws() for _ in range(3)] == first


def test_the_state_loads_without_running_code() -> None:
    draws()
    state = capture()
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    expected = draws()
    restore(torch.load(file, weights_only=True))
    assert draws() == expected


class Disturb(Callback):
    """Draws between the batches, as sampling answers does."""

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        torch.rand(7)
        random.random()


def test_what_validation_draws_does_not_reach_training() -> None:
    quiet, disturbed = Task(dropout=0.5), Task(dropout=0.5)
    torch.manual_seed(0)
    fit(quiet, [RandomState()], max_steps=6)
    torch.manual_seed(0)
    options: dict[str, Any] = {"validate": True, "val_check_interval": 2}
    fit(disturbed, [RandomState(), Disturb()], max_steps=6, **options)
    assert same(weights(quiet), weights(disturbed))


def test_each_rank_takes_its_own_state() -> None:
    states = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        states.append(capture())
    assert torch.equal(_of_rank(states, 1, 2)["torch"], states[1]["torch"])


def test_another_world_size_gives_every_rank_its_own_repeatable_state() -> None:
    torch.manual_seed(5)
    states = [capture()]
    now = torch.rand(())
    derived = [_of_rank(states, rank, 3) for rank in (0, 1, 2)]
    again = _of_rank(states, 2, 3)
    assert torch.equal(again["torch"], derived[2]["torch"])
    assert len({bytes(state["torch"].numpy()) for state in derived}) == 3
    restore(states[0])
    assert torch.rand(()) == now  # deriving leaves the present state alone


def test_a_checkpoint_without_random_state_changes_nothing() -> None:
    callback = RandomState()
    callback.on_load_checkpoint(Trainer(logger=False, enable_checkpointing=False), Task(), {})
    before = capture()
    callback.on_train_start(Trainer(logger=False, enable_checkpointing=False), Task())
    assert torch.equal(before["torch"], capture()["torch"])


def test_the_checkpoint_holds_one_state_per_rank() -> None:
    checkpoint: dict[str, Any] = {}
    trainer = Trainer(logger=False, enable_checkpointing=False)
    RandomState().on_save_checkpoint(trainer, Task(), checkpoint)
    assert len(checkpoint[KEY]) == 1


def test_another_number_of_devices_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    state = capture() | {"cuda": [torch.zeros(16, dtype=torch.uint8)]}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ValueError, match="CUDA_VISIBLE_DEVICES"):
        restore(state)
