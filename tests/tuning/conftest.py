"""A search whose runs cost nothing: their metrics are a function of their setting."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from lit_eve.running.directory import RunDirectory
from lit_eve.schema import Experiment
from lit_eve.tracking.searches import STOP_FILE, TrialCard
from lit_eve.tracking.spool import Spool
from lit_eve.tuning import study, worker
from lit_eve.tuning.launching import TrialRun
from lit_eve.tuning.storage import quiet
from lit_eve.tuning.study import Place, Searching
from lit_eve.tuning.worker import SlotWorker

BASE = Path(__file__).parents[2] / "experiments" / "tokenizer" / "dalle_dvae_laptop.yaml"
STAGE = "train"
STEPS = 8

Values = Mapping[str, float]
Curve = Callable[[Experiment, int], Values]
"""What a run of an experiment records at a step."""


@dataclass
class Bench:
    """Runs a search in this process, without a single training."""

    runs: Path
    launched: list[str] = field(default_factory=list)
    """Names of the runs that were started, in their order."""
    codes: dict[str, list[int]] = field(default_factory=dict)
    """Exit codes of a run's processes, one a start; 0 where none is given."""
    said: list[str] = field(default_factory=list)

    def place(self, *words: str, **changes: str) -> Place:
        """Of words of the `search:` block, and changes of the experiment itself."""
        searching = [f"search.{word}" for word in words]
        base = [f"{key}={value}" for key, value in changes.items()]
        return Place(BASE, (*searching, *base), tiny=False, runs=self.runs, data=self.runs)

    def search(self, *words: str, **changes: str) -> Searching:
        """A search, worked on until nothing of it waits; arguments as of `place`."""
        searching = Searching(self.place(*words, **changes), create=True)
        SlotWorker(searching, self.runs, self.said.append).work()
        return searching


@pytest.fixture
def curve() -> Curve:
    """Replace it: small `kl.to` is good, and every step is better than the one before."""
    return lambda experiment, step: {"val/loss": loss(experiment) + 1 / (1 + step)}


def loss(experiment: Experiment) -> float:
    quantizer: Any = experiment.model.quantizer  # type: ignore[union-attr]
    return float(quantizer.kl.end)


@pytest.fixture
def bench(tmp_path: Path, curve: Curve, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    import optuna

    found, storage = Bench(tmp_path), optuna.storages.InMemoryStorage()

    class Fake(TrialRun):
        """Writes one step a look; ends after `STEPS`, or when it is told to."""

        def prepare(self, experiment: Experiment, card: TrialCard) -> None:
            self.experiment, self.step = experiment, 0
            super().prepare(experiment, card)

        def start(self) -> None:
            name = self.directory.id
            found.launched.append(name)
            self.code = found.codes.get(name, [0]).pop(0) if found.codes.get(name) else 0
            Spool(self.directory.path / "tracking", rank=0).status("RUNNING")
            self.spool = Spool(self.directory.stage(STAGE) / "tracking", rank=0)
            self.spool.status("RUNNING")

        def returned(self) -> int | None:
            if self.step == STEPS or self.code:
                return self.code
            self.step += 1
            self.spool.metrics(curve(self.experiment, self.step), self.step)
            return None

        def stop(self, state: str = "") -> None:
            (self.directory.path / STOP_FILE).write_text(state)

        def last_words(self) -> str:
            return "the model is too large"

    def connect(url: str) -> optuna.storages.BaseStorage:
        quiet()
        return storage

    monkeypatch.setattr(study, "connect", connect)
    monkeypatch.setattr(worker, "TrialRun", Fake)
    monkeypatch.setattr(worker, "POLL_SECONDS", 0.0)
    monkeypatch.setattr(worker, "IDLE_SECONDS", 0.0)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield found
    for number, handler in handlers.items():
        signal.signal(number, handler)


def stopped_as(directory: Path) -> str | None:
    """What the search told a run when it stopped it, None if it did not."""
    path = RunDirectory(directory).path / STOP_FILE
    return path.read_text() if path.is_file() else None


def card(directory: Path) -> dict[str, Any]:
    """What a run knows of its search."""
    read: dict[str, Any] = json.loads((directory / "trial.json").read_text())
    return read
