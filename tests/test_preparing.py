"""Datasets are prepared side by side, shown as one bar, and a failure is not waited out."""

from __future__ import annotations

import io
import threading
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from lit_eve import assemble
from lit_eve.running.preparing import SharedBar, prepare_datasets
from lit_eve.schema import Experiment, load

FILE = Path(__file__).parents[1] / "experiments" / "quickstart.yaml"


@pytest.fixture
def experiment() -> Experiment:
    """Two datasets: glimpses and scenes."""
    return load(FILE, [])


def test_two_datasets_are_prepared_at_the_same_time(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = threading.Barrier(2, timeout=10)  # opens only when the two are under way

    def dataset(options: Any, root: Path, progress: Any) -> Path:
        both.wait()
        return root / str(options.train)

    monkeypatch.setattr(assemble, "dataset", dataset)
    found = prepare_datasets(experiment, Path("data"), Console(file=io.StringIO()))
    assert found == {"glimpses": Path("data/16000"), "scenes": Path("data/40000")}
    assert list(found) == ["glimpses", "scenes"]


def test_a_failure_is_raised_while_another_dataset_is_still_at_work(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    never, ended = threading.Event(), []

    def dataset(options: Any, root: Path, progress: Any) -> Path:
        if options.train == 16000:
            raise ValueError("the disk is full")
        never.wait(30)
        ended.append(root)
        return root

    monkeypatch.setattr(assemble, "dataset", dataset)
    with pytest.raises(ValueError, match="the disk is full"):
        prepare_datasets(experiment, Path("data"), Console(file=io.StringIO()))
    assert not ended, "the other one was waited for"
    never.set()


def test_one_bar_shows_the_sum_of_its_parts() -> None:
    seen: list[tuple[int, int]] = []
    bar = SharedBar(lambda done, total: seen.append((done, total)))
    first, second = bar.part("first"), bar.part("second")
    first(0, 10)
    second(5, 20)
    first(10, 10)
    assert seen == [(0, 10), (5, 30), (15, 30)]
