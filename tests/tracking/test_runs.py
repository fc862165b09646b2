from __future__ import annotations

import json
from pathlib import Path

import pytest

from lit_eve.tracking.liveness import claim, mark_crashed
from lit_eve.tracking.runs import best_value, list_runs, objective
from lit_eve.tracking.spool import Spool


def at(run: Path, *statuses: tuple[str, float]) -> Spool:
    spool = Spool(run / "tracking")
    for status, when in statuses:
        spool.status(status, at=when)  # type: ignore[arg-type]
    return spool


def test_a_run_is_listed_with_its_best_score(tmp_path: Path) -> None:
    run = tmp_path / "digits" / "otter"
    own = at(run, ("RUNNING", 100.0))
    own.tags(objective("val/read", "maximize"))
    for name in ("align", "learn"):
        stage = Spool(run / name / "tracking")
        for step, value in enumerate((0.2, 0.9, float("nan"), 0.7)):
            stage.metrics({"val/read": value, "val/read_more": 7.0}, step)
    own.status("FINISHED", at=160.0)
    [row] = list_runs(tmp_path)
    assert (row.experiment, row.name, row.directory) == ("digits", "otter", run)
    assert (row.status, row.stage) == ("finished", "learn")
    assert (row.metric, row.best) == ("val/read", 0.9)
    assert row.seconds == 60.0
    assert best_value(run, "val/read", "minimize") == 0.2
    assert best_value(run, "val/none", "minimize") is None


def test_the_time_between_two_resumes_does_not_count(tmp_path: Path) -> None:
    at(
        tmp_path / "digits" / "otter",
        ("RUNNING", 100.0),
        ("FAILED", 130.0),
        ("RUNNING", 1000.0),
        ("FINISHED", 1005.0),
    )
    assert list_runs(tmp_path)[0].seconds == 35.0


def test_a_run_that_nobody_runs_is_stale_until_it_is_marked(tmp_path: Path) -> None:
    run = tmp_path / "digits" / "otter"
    at(run, ("RUNNING", 100.0))
    claim(run)
    assert list_runs(tmp_path)[0].status == "running"
    process = run / "tracking" / "process.json"
    process.write_text(json.dumps(json.loads(process.read_text()) | {"created": 0.0}))
    assert list_runs(tmp_path)[0].status == "stale"
    mark_crashed(tmp_path)
    assert list_runs(tmp_path)[0].status == "killed"


def test_the_newest_run_comes_first(tmp_path: Path) -> None:
    for name in ("old", "new"):
        spool = at(tmp_path / "digits" / name)
        text = spool.path.read_text()
        event = json.loads(text) | {"t": 1 if name == "old" else 2}
        spool.path.write_text(json.dumps(event) + "\n")
    assert [row.name for row in list_runs(tmp_path)] == ["new", "old"]


@pytest.mark.parametrize("text", ["", '{"k":"open"', "not json\n"])
def test_a_run_without_a_readable_event_is_not_listed(tmp_path: Path, text: str) -> None:
    folder = tmp_path / "digits" / "otter" / "tracking"
    folder.mkdir(parents=True)
    (folder / "events.jsonl").write_text(text)
    assert list_runs(tmp_path) == []
