"""A run says what a mixture of datasets really gave."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from lit_eve.running.mixture import MixtureShares


class Loader:
    def __init__(self, **shares: tuple[float, float]) -> None:
        self.shares = shares


def logged(loader: Loader, steps: int, accumulate: int = 1) -> dict[int, dict[str, float]]:
    found: dict[int, dict[str, float]] = {}
    logger = SimpleNamespace(log_metrics=lambda values, step: found.update({step: values}))
    callback = MixtureShares(loader, every=4)
    trainer: Any = SimpleNamespace(
        logger=logger, accumulate_grad_batches=accumulate, max_steps=steps, global_step=0
    )
    for batch in range(steps * accumulate):
        trainer.global_step = (batch + 1) // accumulate
        callback.on_train_batch_end(trainer, cast(Any, None), None, None, batch)
    return found


@pytest.mark.parametrize("accumulate", [1, 3])
def test_shares_stand_beside_those_asked_for(accumulate: int) -> None:
    found = logged(Loader(words=(0.7, 0.75), scenes=(0.3, 0.25)), 10, accumulate)
    assert list(found) == [4, 8, 10]
    assert found[10] == {
        "data/share/words": 0.7,
        "data/share/scenes": 0.3,
        "data/asked/words": 0.75,
        "data/asked/scenes": 0.25,
    }


def test_one_dataset_is_no_mixture() -> None:
    assert logged(Loader(words=(1.0, 1.0)), 8) == {}
