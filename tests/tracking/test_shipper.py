from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from lit_eve.tracking import ship
from lit_eve.tracking.delivery import Delivery
from lit_eve.tracking.fleet import Fleet
from lit_eve.tracking.liveness import claim, last_status, tracking_folder
from lit_eve.tracking.searches import SEARCH_FOLDER, TrialCard
from lit_eve.tracking.ship import DELETED, DELIVERED, UNDELIVERED, Shipping
from lit_eve.tracking.shipper import Shipper, start_shipper, sync
from lit_eve.tracking.spool import Spool
from lit_eve.tracking.store import StoreError, locate
from tests.files import tracking_processes

if TYPE_CHECKING:
    from mlflow import MlflowClient

    Points = Callable[[str, str], list[tuple[int, float]]]

NOWHERE = "http://127.0.0.1:9"
TEN = [(step, 1 / (step + 1)) for step in range(10)]


@pytest.fixture
def training() -> Iterator[subprocess.Popen[bytes]]:
    """A process to be watched."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield process
    process.kill()
    process.wait()


def live(runs: Path, pid: int) -> Path:
    run = runs / "digits" / "quick-hare"
    for folder in (run / "tracking", run / "learn" / "tracking"):
        Spool(folder).status("RUNNING")
    claim(run)
    owner = tracking_folder(run) / "process.json"
    owner.write_text(json.dumps(json.loads(owner.read_text()) | {"pid": pid}))
    return run


def shipping(run: Path, uri: str, watch: int) -> Shipping:
    return Shipping(run, locate(uri), watch, poll=0.01)


def status(client: MlflowClient, name: str) -> str:
    experiments = [found.experiment_id for found in client.search_experiments()]
    [run] = client.search_runs(experiments, f"attributes.run_name = '{name}'")
    return str(run.info.status)


def test_a_killed_training_is_marked_and_its_last_lines_arrive(
    tmp_path: Path,
    uri: str,
    client: MlflowClient,
    points: Points,
    training: subprocess.Popen[bytes],
) -> None:
    run = live(tmp_path / "runs", training.pid)
    stage = Spool(run / "learn" / "tracking")
    for step in range(10):
        stage.metrics({"train/loss": 1 / (step + 1)}, step)
    loop = shipping(run, uri, training.pid)
    training.kill()
    training.wait()
    assert loop.run() == DELIVERED
    assert points("learn", "train/loss") == TEN
    assert (status(client, "quick-hare"), status(client, "learn")) == ("FAILED", "FAILED")


def test_a_training_that_ended_well_is_not_marked(
    tmp_path: Path, uri: str, client: MlflowClient, training: subprocess.Popen[bytes]
) -> None:
    run = live(tmp_path / "runs", training.pid)
    Spool(run / "tracking").status("FINISHED")
    training.kill()
    training.wait()
    assert shipping(run, uri, training.pid).run() == DELIVERED
    assert status(client, "quick-hare") == "FINISHED"


def test_a_run_that_another_process_resumed_is_not_marked(
    tmp_path: Path, uri: str, training: subprocess.Popen[bytes]
) -> None:
    run = live(tmp_path / "runs", training.pid)
    loop = shipping(run, uri, training.pid)
    training.kill()
    training.wait()
    claim(run)  # the resumed training is this process
    loop.run()
    assert last_status(tracking_folder(run)) == "RUNNING"


def test_a_store_that_comes_back_gets_everything(
    tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch, points: Points
) -> None:
    run = live(tmp_path / "runs", os.getpid())
    Spool(run / "learn" / "tracking").metrics({"train/loss": 1.0}, 0)
    loop = shipping(run, uri, os.getpid())
    real, failures = Delivery.ship, iter(range(5))

    def away(delivery: Delivery) -> int:
        if next(failures, None) is not None:
            raise ConnectionError("refused")
        loop.finish(5.0)
        return real(delivery)

    monkeypatch.setattr(Delivery, "ship", away)
    monkeypatch.setattr(ship, "MAX_WAIT", 0.05)
    assert loop.run() == DELIVERED
    assert points("learn", "train/loss") == [(0, 1.0)]


def test_pauses_between_tries_grow_to_half_a_minute(
    tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = Shipping(live(tmp_path / "runs", os.getpid()), locate(uri), os.getpid(), poll=2.0)
    now = 0.0
    tries: list[float] = []

    def away(store: object) -> None:
        tries.append(now)
        raise ConnectionError("refused")

    monkeypatch.setattr(ship, "connect", away)
    monkeypatch.setattr(time, "monotonic", lambda: now)
    while now < 120:
        loop._try_to_ship()
        now += 0.5
    assert [b - a for a, b in pairwise(tries)] == [4, 8, 16, 30, 30, 30]


def test_the_end_of_a_run_does_not_wait_for_a_store_that_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(store: object) -> None:
        raise ConnectionError("refused")

    monkeypatch.setattr(ship, "connect", away)
    loop = shipping(live(tmp_path / "runs", os.getpid()), NOWHERE, os.getpid())
    loop.finish(0.3)
    start = time.monotonic()
    assert loop.run() == UNDELIVERED
    assert time.monotonic() - start < 5


def test_a_store_that_is_slow_but_takes_everything_is_not_left(
    tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch, client: MlflowClient
) -> None:
    run = live(tmp_path / "runs", os.getpid())
    loop = shipping(run, uri, os.getpid())
    real = Fleet.ship

    def slow(fleet: Fleet) -> None:
        time.sleep(0.2)
        real(fleet)

    monkeypatch.setattr(Fleet, "ship", slow)
    for folder in (run / "learn" / "tracking", run / "tracking"):
        Spool(folder).status("FINISHED")
    loop.finish(0.0)
    assert loop.run() == DELIVERED
    assert status(client, "learn") == "FINISHED"


def search_of_two(root: Path) -> Path:
    """A search, a trial that is finished and one that runs in this process."""
    search = root / "tuned" / SEARCH_FOLDER
    Spool(search / "tracking").status("RUNNING")
    claim(search)
    for number in range(2):
        trial = root / "tuned" / f"trial-{number:03d}"
        card = TrialCard(number, f"t{number}", objective="minimize val/loss")
        trial.mkdir()
        card.write(trial)
        spool = Spool(trial / "tracking", tags=card.tags | {"mlflow.runName": card.name})
        spool.status("RUNNING")
        claim(trial)
        spool.metrics({"val/loss": 0.5 + number}, 1)
        if number == 0:
            spool.status("FINISHED")
    return search


def test_a_search_ships_its_trials_below_it_with_colours_of_their_own(
    tmp_path: Path, uri: str, client: MlflowClient
) -> None:
    search = search_of_two(tmp_path)
    assert sync(search, uri).num_refused == 0
    [experiment] = [e for e in client.search_experiments() if e.name == "tuned"]
    runs = {r.info.run_name: r for r in client.search_runs([experiment.experiment_id])}
    parent = next(r for r in runs.values() if r.info.run_name == SEARCH_FOLDER)
    for name, ended in (("t0", "FINISHED"), ("t1", "RUNNING")):
        assert runs[name].data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert runs[name].info.status == ended
    assert len({run.data.tags["mlflow.runColor"] for run in runs.values()}) == 3
    assert sync(search, uri).num_sent == 0


def test_trials_of_a_search_that_died_are_marked_with_it(
    tmp_path: Path, uri: str, client: MlflowClient, training: subprocess.Popen[bytes]
) -> None:
    search = search_of_two(tmp_path)
    for run in (search, search.parent / "trial-001"):
        owner = tracking_folder(run) / "process.json"
        owner.write_text(json.dumps(json.loads(owner.read_text()) | {"pid": training.pid}))
    loop = shipping(search, uri, training.pid)
    training.kill()
    training.wait()
    assert loop.run() == DELIVERED
    assert [status(client, n) for n in (SEARCH_FOLDER, "t0", "t1")] == [
        "FAILED",
        "FINISHED",
        "FAILED",
    ]


def test_a_run_deleted_in_the_ui_ends_its_shipping(
    tmp_path: Path, uri: str, client: MlflowClient
) -> None:
    run = live(tmp_path / "runs", os.getpid())
    delivery = Delivery(client, locate(uri), run)
    delivery.ship()
    client.delete_run(delivery.run_id())
    Spool(run / "tracking").metrics({"val/read": 1.0}, 0)
    assert shipping(run, uri, os.getpid()).run() == DELETED


def test_the_machine_is_measured_beside_the_training(
    tmp_path: Path, uri: str, points: Points
) -> None:
    run = live(tmp_path / "runs", os.getpid())
    loop = shipping(run, uri, os.getpid())
    loop._measure()
    loop.finish(5.0)
    assert loop.run() == DELIVERED
    for key in ("process_cpu_percent", "process_memory_gib", "machine_memory_percent"):
        [(_, value)] = points("quick-hare", f"system/{key}")
        assert value >= 0


def test_other_ranks_start_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    shipper = start_shipper(tmp_path / "runs" / "digits" / "otter", NOWHERE)
    assert shipper.pid is None
    assert shipper.finish(0.0)


def test_an_address_that_cannot_work_is_an_error_before_the_training(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="for a file on this machine"):
        start_shipper(tmp_path, "file:///mlruns")


def test_a_training_does_not_notice_that_there_is_no_server(
    run_directory: Path, uri: str, points: Points
) -> None:
    shipper = start_shipper(run_directory, "http://me:hunter2@127.0.0.1:9")
    spool = Spool(run_directory / "learn" / "tracking")
    for step in range(10, 210):
        spool.metrics({"train/loss": 0.0}, step)
    assert "hunter2" not in " ".join(psutil.Process(shipper.pid).cmdline())
    assert not shipper.finish(0.1)
    assert not tracking_processes()
    assert "hunter2" not in shipper.log.read_text()
    assert sync(run_directory, uri).num_refused == 0
    assert points("learn", "train/loss") == TEN + [(step, 0.0) for step in range(10, 210)]


@pytest.mark.slow
def test_a_killed_shipper_has_a_successor(run_directory: Path, uri: str, points: Points) -> None:
    shipper = Shipper(run_directory, locate(uri), poll=0.2)
    assert shipper.pid is not None
    memory = run_directory / "align" / "tracking"
    while not list(memory.glob("shipped-*.json")):
        time.sleep(0.05)
    os.kill(shipper.pid, signal.SIGKILL)
    Spool(run_directory / "learn" / "tracking").metrics({"train/loss": 0.0}, 10)
    assert shipper.finish(60.0)
    assert points("align", "train/loss") == TEN
    assert points("learn", "train/loss") == [*TEN, (10, 0.0)]
    assert not tracking_processes()
