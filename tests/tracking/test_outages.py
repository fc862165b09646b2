"""Whatever call to the store fails, before or after it took effect: everything arrives once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from lit_eve.tracking import media
from lit_eve.tracking.delivery import Delivery
from lit_eve.tracking.spool import Spool
from lit_eve.tracking.store import locate

if TYPE_CHECKING:
    from mlflow import MlflowClient

STEPS = 25


class Faulty:
    """A client whose server dies around one call in three, half of them after it took effect."""

    def __init__(self, client: MlflowClient, seed: int) -> None:
        self.client, self.random, self.failures = client, Random(seed), 0

    def __getattr__(self, name: str) -> Callable[..., Any]:
        call = getattr(self.client, name)

        def faulty(*args: Any, **kwargs: Any) -> Any:
            chance = self.random.random()
            if chance < 1 / 6:
                self.failures += 1
                raise ConnectionError("refused")
            answer = call(*args, **kwargs)
            if chance < 2 / 6:
                self.failures += 1
                raise ConnectionError("the answer was lost")
            return answer

        return faulty


def run_with_pictures(root: Path) -> Path:
    run = root / "digits" / "brisk-otter"
    own, stage = Spool(run / "tracking"), Spool(run / "learn" / "tracking")
    for spool in (own, stage):
        spool.status("RUNNING")
    own.dataset("scenes", "0123", "datasets/scenes")
    for step in range(STEPS):
        stage.metrics({"train/loss": 1 / (step + 1)}, step)
        if step % 3 == 0:
            media.log_images(stage, "val/answers", step, [np.zeros((4, 4, 3))])
    for spool in (stage, own):
        spool.status("FINISHED")
    return run


@pytest.mark.parametrize("seed", [0, 1])
def test_a_server_that_dies_around_calls_loses_and_doubles_nothing(
    tmp_path: Path, uri: str, client: MlflowClient, seed: int
) -> None:
    run, faulty = run_with_pictures(tmp_path), Faulty(client, seed)
    delivery = Delivery(faulty, locate(uri), run)  # type: ignore[arg-type]
    for attempt in range(200):
        try:
            delivery.ship()
        except ConnectionError:
            if attempt % 2:  # the shipper died with the server: another one goes on
                delivery = Delivery(faulty, locate(uri), run)  # type: ignore[arg-type]
            continue
        break
    assert faulty.failures >= 5
    experiment = client.get_experiment_by_name("digits")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert {(r.info.run_name, r.info.status) for r in runs} == {
        ("brisk-otter", "FINISHED"),
        ("learn", "FINISHED"),
    }
    stage = next(r for r in runs if r.info.run_name == "learn")
    rows = client.get_metric_history(stage.info.run_id, "train/loss")
    rows.sort(key=lambda row: row.timestamp)  # in the order of their recording
    assert [(r.step, r.value) for r in rows] == [(s, 1 / (s + 1)) for s in range(STEPS)]
    pictures = [f.path for f in client.list_artifacts(stage.info.run_id, "images")]
    assert len(pictures) == 2 * len(range(0, STEPS, 3))  # each with its smaller copy
    own = next(r for r in runs if r.info.run_name == "brisk-otter")
    assert own.inputs is not None
    assert len(own.inputs.dataset_inputs) == 1
