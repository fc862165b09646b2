"""What a run knows of the search it belongs to: written by the search, read by run and shipper."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from lit_eve.tracking.liveness import tracking_folder, write_atomically
from lit_eve.tracking.runs import OBJECTIVE_TAG
from lit_eve.tracking.spool import EVENTS_FILE, Status, read_events

CARD_FILE = "trial.json"
STOP_FILE = "stop"
KIND_TAG, NUMBER_TAG = "lit_eve.kind", "lit_eve.trial"
SEARCH_FOLDER = "search"
"""A search's own run, beside its trials: `<runs>/<name>/search/`."""


SHIPPED_VARIABLE = "LIT_EVE_SHIPPED_BY_SEARCH"
"""Tells a trial's run that the search's process ships it: importing MLflow costs a short trial
half of its time."""


@dataclass(frozen=True)
class TrialCard:
    """Which trial of the search beside it a run is."""

    number: int
    name: str
    """Of the run in MLflow: `t012 lr=1e-3`."""
    kind: str = "trial"
    """trial, or rerun."""
    params: Mapping[str, str] = field(default_factory=dict)
    """The setting."""
    objective: str = ""
    """Direction and metric, as `runs.objective` writes them."""

    @property
    def tags(self) -> dict[str, str]:
        """Of the trial's run."""
        return {KIND_TAG: self.kind, NUMBER_TAG: str(self.number), OBJECTIVE_TAG: self.objective}

    def write(self, run_directory: Path) -> None:
        """Leave the card in a run's directory."""
        write_atomically(Path(run_directory) / CARD_FILE, json.dumps(asdict(self), indent=2))


def card_of(run_directory: Path) -> TrialCard | None:
    """The card of a run, None if it belongs to no search."""
    path = Path(run_directory) / CARD_FILE
    if not path.is_file():
        return None
    return TrialCard(**json.loads(path.read_text(encoding="utf-8")))


def parent_uid(run_directory: Path) -> str | None:
    """The uid of the search's spool, None where there is none yet."""
    own = tracking_folder(Path(run_directory).parent / SEARCH_FOLDER) / EVENTS_FILE
    first = next(read_events(own), None)
    return str(first[0]["uid"]) if first and first[0]["k"] == "open" else None


def shipped_by_search() -> bool:
    """Whether this process is a trial's, and needs no shipper of its own."""
    return SHIPPED_VARIABLE in os.environ


def family(run_directory: Path) -> list[Path]:
    """A search with all its trials that have begun; a run of no search is alone."""
    run_directory = Path(run_directory)
    if run_directory.name != SEARCH_FOLDER:
        return [run_directory]
    trials = [card.parent for card in run_directory.parent.glob(f"*/{CARD_FILE}")]
    begun = (trial for trial in trials if (tracking_folder(trial) / EVENTS_FILE).is_file())
    return [run_directory, *sorted(begun)]


def end_of(run_directory: Path) -> tuple[Status, str]:
    """Status and state of a run that a signal has stopped.

    A trial that its search has stopped early did what it was for: finished, state `pruned`.
    """
    try:
        state = (Path(run_directory) / STOP_FILE).read_text(encoding="utf-8").strip()
    except OSError:
        return "KILLED", "killed"
    return ("FINISHED", state) if state == "pruned" else ("FAILED", state)
