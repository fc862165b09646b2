"""Which runs a store lacks something of, and what `lit-eve sync` takes for a name."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lit_eve.running.syncing import target, unsent
from lit_eve.tracking.searches import SEARCH_FOLDER, TrialCard
from lit_eve.tracking.spool import Spool
from tests.files import QUICKSTART


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A run of its own, a run that nobody tracks, and a search with a trial."""
    for name, text in (
        ("one/alone", ""),
        ("one/untracked", "\ntracking: {type: none}\n"),
        ("tuned/trial-000", ""),
        (f"tuned/{SEARCH_FOLDER}", None),
    ):
        spool = Spool(tmp_path / name / "tracking", rank=0)
        spool.status("FINISHED")
        if text is not None:
            shutil.copy(QUICKSTART, tmp_path / name / "experiment.yaml")
            with (tmp_path / name / "experiment.yaml").open("a") as file:
                file.write(text)
    TrialCard(0, "t000").write(tmp_path / "tuned" / "trial-000")
    return tmp_path


def test_a_search_stands_for_its_trials(runs: Path) -> None:
    waiting = [run for run, _ in unsent(runs)]
    assert waiting == [runs / "one" / "alone", runs / "tuned" / SEARCH_FOLDER]


def test_only_runs_of_the_store_that_is_looked_at_are_sent(runs: Path) -> None:
    assert list(unsent(runs, "sqlite:///other.db")) == []


@pytest.mark.parametrize("name", ["tuned", "tuned/search"])
def test_a_search_is_named_by_its_experiment_or_folder(
    runs: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(runs)
    assert target(name, runs) == runs / "tuned" / SEARCH_FOLDER


def test_a_run_is_named_by_its_id(runs: Path) -> None:
    assert target("alone", runs) == runs / "one" / "alone"
