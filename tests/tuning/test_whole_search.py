"""A search from its words to its report, and what ends it early."""

from __future__ import annotations

import math
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from optuna.trial import TrialState

from lit_eve.schema import Experiment, load
from lit_eve.tracking.spool import EVENTS_FILE, read_events
from lit_eve.tuning import search as searches
from lit_eve.tuning.search import SearchError, search
from lit_eve.tuning.slots import REASON
from lit_eve.tuning.study import Searching
from tests.tuning.conftest import Bench, Curve, Values, loss

SPACE = 'space={"model.quantizer.kl.to": [0.3, 0.2, 0.1, 0.4]}'
WORDS = ("sampler=grid", "minimize=val/loss", SPACE)
UNTRACKED = {"tracking": "{type: none}"}


def events(folder: Path, kind: str) -> list[Any]:
    found = read_events(folder / "tracking" / EVENTS_FILE)
    return [event["v"] for event, _ in found if event["k"] == kind]


def ended(bench: Bench, *words: str) -> Searching:
    """A search whose trials were all tried before it looks."""
    bench.search(*words, **UNTRACKED)
    return search(bench.place(*words, **UNTRACKED), 0, bench.said.append)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searches, "POLL_SECONDS", 0.0)


def test_a_search_leaves_a_report_and_its_best_experiment_ready_to_run(bench: Bench) -> None:
    searching = ended(bench, *WORDS, "then={rerun: best 1, seeds: [4]}")
    folder = searching.place.folder
    assert loss(load(folder / "best.yaml")) == 0.1
    page = (folder / "report.html").read_text()
    for part in ("4 of 4 trials", "History of val/loss", "The best, with more seeds", "<svg"):
        assert part in page
    assert "://" not in page.replace("http://www.w3.org", "")  # it needs no network


def test_a_search_is_a_run_whose_description_begins_with_the_verdict(bench: Bench) -> None:
    folder = ended(bench, *WORDS).place.folder
    first, *_, last = events(folder, "note")
    assert first.startswith("**4 of 4 trials")
    assert "| 2 | 0.21111 | 0.1 |" in last
    assert events(folder, "status") == ["RUNNING", "FINISHED"]
    best = [values["search/best_val_loss"] for values in events(folder, "metrics")]
    assert best == [pytest.approx(kl + 1 / 9) for kl in (0.3, 0.2, 0.1, 0.1)]


class TestNothingButFailures:
    @pytest.fixture
    def curve(self) -> Curve:
        def values(experiment: Experiment, step: int) -> Values:
            return {"val/loss": math.nan}

        return values

    def test_end_the_search_with_their_reasons(self, bench: Bench) -> None:
        words = ("trials=8", "minimize=val/loss", SPACE.replace("0.4", "0.4, 0.5, 0.6, 0.7"))
        searching = Searching(bench.place(*words, **UNTRACKED), create=True)
        for _ in range(5):
            trial = searching.trials.take()
            assert trial is not None
            searching.trials.finish(trial, TrialState.FAIL, None, {REASON: "no such dataset"})
        with pytest.raises(SearchError, match=r"first 5 trials failed.*\n  no such dataset\nMend"):
            search(bench.place(*words, **UNTRACKED), 0, bench.said.append)
        assert events(searching.place.folder, "status") == ["RUNNING", "FAILED"]


def test_a_search_that_is_stopped_says_that_it_goes_on(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = bench.place(*WORDS, **UNTRACKED)
    stop = {"sleep": lambda _: signal.raise_signal(signal.SIGTERM)}
    sleepless = SimpleNamespace(**vars(time) | stop)
    monkeypatch.setattr(searches, "time", sleepless)  # other threads of this process sleep on
    with pytest.raises(searches.SearchStopped, match="the same command goes on"):
        search(place, 0, bench.said.append)
    assert events(place.folder, "status") == ["RUNNING", "KILLED"]


def test_two_searches_of_one_name_do_not_run_at_once(bench: Bench) -> None:
    from filelock import FileLock

    place = bench.place(*WORDS, **UNTRACKED)
    place.folder.mkdir(parents=True)
    with FileLock(place.folder / "search.lock"), pytest.raises(ValueError, match="Help it with"):
        search(place, 0, bench.said.append)
