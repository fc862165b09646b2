"""Slots of a study: made once, each taken by one worker at a time, each finished exactly once.

A slot is one Optuna trial, enqueued before any worker starts. A worker takes a waiting one, and
shows by a lease that it is at work. A slot whose worker is gone waits again and keeps its number,
its setting and its run directory, so that whoever takes it next goes on from its checkpoint.
"""

from __future__ import annotations

import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import psutil

from lit_eve.tracking.liveness import process_alive
from lit_eve.tuning.storage import alone

if TYPE_CHECKING:
    from optuna import Study
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial, Trial, TrialState

LEASE = "lease"
TAKEN = "taken"
REASON = "reason"
TWIN = "same as"
LEASE_SECONDS = 15.0
"""How often a worker shows that it is at work."""
SILENT_SECONDS = 180.0
"""A worker on another machine that has been silent for so long is gone; clocks may differ a bit."""
MOST_TAKEN = 20
"""A slot that was taken so often, and never finished, fails: it may be what kills its workers."""


@dataclass(frozen=True)
class Worker:
    """A process that tries slots."""

    host: str
    pid: int
    created: float

    @classmethod
    def this(cls) -> Worker:
        """The process that asks."""
        return cls(socket.gethostname(), os.getpid(), psutil.Process().create_time())


class Slots:
    """The slots of one study."""

    def __init__(self, study: Study, url: str, worker: Worker | None = None) -> None:
        """Args: the study, its storage's address, and who asks, by default this process."""
        self.study, self.url = study, url
        self.worker = worker or Worker.this()

    def take(self, sampler: Callable[[int], BaseSampler] | None = None) -> Trial | None:
        """A waiting slot, with the sampler's proposal for it; None if none waits now.

        Args:
            sampler: who proposes for a slot, by its number; by default the study's own.
        """
        from optuna.trial import Trial

        with alone(self.url):
            self._reap()
            trial_id = self.study._pop_waiting_trial_id()
            if trial_id is None:
                return None
            storage = self.study._storage
            found = storage.get_trial(trial_id)
            taken = found.user_attrs.get(TAKEN, 0) + 1
            storage.set_trial_user_attr(trial_id, TAKEN, taken)
            storage.set_trial_user_attr(trial_id, LEASE, self._lease())
        if sampler is not None:
            self.study.sampler = sampler(found.number)
        return Trial(self.study, trial_id)

    def beat(self, trial: Trial) -> bool:
        """Renew the lease; False if somebody else has the slot by now."""
        with alone(self.url):
            if not self._mine(trial.number):
                return False
            trial.set_user_attr(LEASE, self._lease())
        return True

    def finish(
        self,
        trial: Trial,
        state: TrialState,
        values: Sequence[float] | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> bool:
        """Record how a slot ended; False, and nothing, if somebody else has it by now."""
        with alone(self.url):
            if not self._mine(trial.number):
                return False
            for key, value in (attributes or {}).items():
                trial.set_user_attr(key, value)
            self.study.tell(trial, values, state=state)
        return True

    def give_back(self, trial: Trial) -> None:
        """Let the slot wait for another worker."""
        from optuna.trial import TrialState

        with alone(self.url):
            if self._mine(trial.number):
                self.study._storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)

    def unfinished(self) -> int:
        """Slots that wait or are being tried."""
        return sum(not trial.state.is_finished() for trial in self.trials())

    def trials(self) -> list[FrozenTrial]:
        """All slots, as they are now."""
        self.study._thread_local.cached_all_trials = None
        return self.study.get_trials(deepcopy=False)

    def counts(self) -> dict[str, int]:
        """How many slots are in each state, by Optuna's word in lower case."""
        return dict(Counter(trial.state.name.lower() for trial in self.trials()))

    def _reap(self) -> None:
        """Let slots wait again whose worker is gone."""
        from optuna.trial import TrialState

        storage = self.study._storage
        for trial in self.trials():
            if trial.state != TrialState.RUNNING or not _gone(trial.user_attrs.get(LEASE)):
                continue
            if trial.user_attrs.get(TAKEN, 0) < MOST_TAKEN:
                storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)
            else:
                reason = f"its worker died {MOST_TAKEN} times"
                storage.set_trial_user_attr(trial._trial_id, REASON, reason)
                storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)

    def twin(self, trial: Trial, setting: Mapping[str, Any]) -> FrozenTrial | None:
        """The first earlier slot with the same setting, None if there is none."""
        for other in self.trials()[: trial.number]:
            if other.params == setting:
                return other
        return None

    def _lease(self) -> dict[str, Any]:
        return {**asdict(self.worker), "beat": time.time()}

    def _mine(self, number: int) -> bool:
        trial = self.trials()[number]
        lease = trial.user_attrs.get(LEASE, {})
        mine = {key: lease.get(key) for key in asdict(self.worker)} == asdict(self.worker)
        return mine and not trial.state.is_finished() and trial.state.name == "RUNNING"


def _gone(lease: Mapping[str, Any] | None) -> bool:
    """Whether the worker of a lease has ended."""
    if lease is None:  # it died between taking the slot and saying so
        return True
    if lease["host"] == socket.gethostname():
        return not process_alive(lease["pid"], lease["created"])
    return time.time() - float(lease["beat"]) > SILENT_SECONDS
