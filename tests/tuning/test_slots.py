"""Every slot is finished exactly once, whoever dies on the way."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from lit_eve.tracking.liveness import created_at
from lit_eve.tuning.slots import Slots, Worker
from lit_eve.tuning.storage import connect


def slots(url: str, worker: Worker | None = None) -> Slots:
    return Slots(optuna.load_study(study_name="study", storage=connect(url)), url, worker)


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A storage with four slots."""
    url = f"sqlite:///{tmp_path}/search.db"
    study = optuna.create_study(study_name="study", storage=connect(url))
    for _ in range(4):
        study.enqueue_trial({})
    return url


def test_workers_that_take_at_once_never_get_the_same_slot(url: str) -> None:
    start = threading.Barrier(4)

    def take() -> int:
        own = slots(url)
        start.wait()
        trial = own.take()
        assert trial is not None
        return trial.number

    with ThreadPoolExecutor(4) as pool:
        assert sorted(f.result() for f in [pool.submit(take) for _ in range(4)]) == [0, 1, 2, 3]
    assert slots(url).take() is None


def test_the_slot_of_a_killed_worker_waits_again_with_its_setting(url: str) -> None:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    doomed = replace(Worker.this(), pid=process.pid, created=created_at(process.pid) or 0.0)
    trial = slots(url, doomed).take()
    assert trial is not None
    rate = trial.suggest_float("rate", 0, 1)
    process.kill()
    process.wait()
    again = slots(url).take()
    assert again is not None
    assert (again.number, again.suggest_float("rate", 0, 1)) == (0, rate)


def test_who_lost_a_slot_cannot_finish_it(url: str) -> None:
    late = slots(url, replace(Worker.this(), created=0.0))  # no such process: it counts as dead
    lost = late.take()
    other = slots(url)
    mine = other.take()
    assert lost is not None
    assert mine is not None
    assert mine.number == lost.number
    assert not late.finish(lost, TrialState.COMPLETE, [1.0])
    assert other.finish(mine, TrialState.COMPLETE, [2.0])
    assert other.trials()[0].value == 2.0


def test_a_setting_that_was_drawn_before_is_recognised(url: str) -> None:
    own = slots(url)
    trials = [trial for trial in (own.take(), own.take()) if trial is not None]
    for trial in trials:
        trial.suggest_categorical("codes", [64])
    twin = own.twin(trials[1], {"codes": 64})
    assert twin is not None
    assert twin.number == 0
