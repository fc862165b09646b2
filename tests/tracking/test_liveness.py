from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lit_eve.tracking.liveness import (
    alive,
    beat,
    claim,
    created_at,
    last_sign_of_life,
    last_status,
    mark_crashed,
    process_alive,
    spool_folders,
    tracking_folder,
)
from lit_eve.tracking.spool import Spool, read_events

HOUR = 3600.0


def running(runs: Path, name: str) -> Path:
    run = runs / "digits" / name
    for folder in (run / "tracking", run / "learn" / "tracking"):
        Spool(folder).status("RUNNING")
    return run


def claimed_by(run: Path, *, pid: int, created: float, host: str) -> None:
    owner = {"pid": pid, "created": created, "host": host}
    (tracking_folder(run) / "process.json").write_text(json.dumps(owner))


def silent_since(run: Path, seconds: float) -> float:
    then = time.time() - seconds
    for file in run.rglob("*"):
        os.utime(file, (then, then))
    return then


@pytest.fixture
def dead() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_killed_run_is_marked_at_its_last_sign_of_life(tmp_path: Path, dead: int) -> None:
    run = running(tmp_path, "otter")
    claim(run)
    owner = json.loads((tracking_folder(run) / "process.json").read_text())
    claimed_by(run, pid=dead, created=0.0, host=owner["host"])
    then = silent_since(run, HOUR)
    assert mark_crashed(tmp_path) == [run]
    for folder in spool_folders(run):
        events = [event for event, _ in read_events(folder / "events.jsonl")]
        status, tags = events[-2:]
        assert (status["v"], tags["v"]) == ("FAILED", {"lit_eve.state": "killed"})
        assert status["t"] == pytest.approx(then * 1000, abs=5)
    assert mark_crashed(tmp_path) == []


def test_a_living_run_is_left_alone(tmp_path: Path) -> None:
    run = running(tmp_path, "otter")
    claim(run)
    silent_since(run, HOUR)
    assert alive(run)
    assert mark_crashed(tmp_path) == []


def test_a_process_that_was_given_a_dead_ones_number_does_not_count(tmp_path: Path) -> None:
    run = running(tmp_path, "otter")
    claim(run)
    owner = json.loads((tracking_folder(run) / "process.json").read_text())
    claimed_by(run, pid=os.getpid(), created=owner["created"] - HOUR, host=owner["host"])
    assert mark_crashed(tmp_path) == [run]


@pytest.mark.parametrize(("silent", "marked"), [(HOUR, True), (60.0, False)])
def test_another_machines_run_is_judged_by_its_signs_of_life(
    tmp_path: Path, silent: float, marked: bool
) -> None:
    run = running(tmp_path, "otter")
    claimed_by(run, pid=1, created=0.0, host="another-machine")
    silent_since(run, silent)
    assert mark_crashed(tmp_path) == ([run] if marked else [])


def test_a_run_that_just_starts_is_left_alone(tmp_path: Path) -> None:
    running(tmp_path, "otter")
    assert mark_crashed(tmp_path) == []


def test_finished_runs_stay_finished(run_directory: Path) -> None:
    silent_since(run_directory, HOUR)
    assert mark_crashed(run_directory.parent.parent) == []
    assert last_status(tracking_folder(run_directory)) == "FINISHED"


def test_a_note_that_quotes_a_status_is_no_status(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.status("RUNNING")
    spool.note('{"k":"status","v":"FINISHED"}')
    assert last_status(tmp_path) == "RUNNING"


def test_a_zombie_is_not_alive() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.read()  # its end closes the pipe
    time.sleep(0.05)
    assert not process_alive(child.pid)
    child.wait()
    child.stdout.close()


def test_stages_come_in_the_order_they_began(tmp_path: Path) -> None:
    run = tmp_path / "digits" / "otter"
    for name in ("tracking", "zebra/tracking", "ant/tracking"):
        Spool(run / name)
        time.sleep(0.002)
    assert [folder.parent.name for folder in spool_folders(run)] == ["otter", "zebra", "ant"]


def test_nobody_has_the_number_of_a_dead_process(dead: int) -> None:
    assert created_at(dead) is None


def test_a_run_that_has_recorded_nothing_yet_shows_life_too(tmp_path: Path) -> None:
    beat(tmp_path / "runs" / "digits" / "otter")
    assert last_sign_of_life(tmp_path / "runs" / "digits" / "otter") > 0
