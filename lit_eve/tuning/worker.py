"""A worker: takes slots, lets each be tried by a run of its own, and never trains itself."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from lit_eve.schema import Experiment, ExperimentErrors
from lit_eve.tracking.liveness import beat
from lit_eve.tracking.searches import TrialCard
from lit_eve.tuning.launching import Readings, TrialRun
from lit_eve.tuning.proposing import Setting, shown, shown_value
from lit_eve.tuning.slots import LEASE_SECONDS, REASON, TWIN, Slots
from lit_eve.tuning.study import RANK, SEED, SETTING, Searching

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial, Trial

POLL_SECONDS = 0.5
IDLE_SECONDS = 2.0
MOST_KILLED = 2
"""A run that the system killed so often (out of memory, mostly) is not tried again."""
KILLED = "killed"
MAX_PARAMS = 8

Say = Callable[[str], None]


class LeaseLostError(RuntimeError):
    """Another worker has the slot: this one was silent for too long."""


class WorkerStopped(Exception):  # noqa: N818  # nothing went wrong
    """A signal ended the worker; its slot waits for another one."""


@dataclass(frozen=True)
class Ended:
    """How a run ended: Optuna's word for it, values if complete, a reason if not."""

    state: str
    values: tuple[float, ...] | None = None
    reason: str = ""
    constraints: Mapping[str, float] | None = None


class SlotWorker:
    """Works on a search until nothing of it waits or runs."""

    def __init__(self, searching: Searching, data: Path, say: Say) -> None:
        """Args: the search, the root of prepared datasets, and who is told what happens."""
        self.searching, self.data, self.say = searching, data, say
        self.stopped: signal.Signals | None = None

    def work(self) -> None:
        """Try slots until all are finished; then those of `then:`.

        Raises:
            WorkerStopped: if SIGTERM or SIGINT came; the slot at hand waits for another worker.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        self._work_on(self.searching.trials, self._try)
        while (reruns := self.searching.reruns()) is None and self.searching.search.then:
            time.sleep(IDLE_SECONDS)
        if reruns is not None:
            self._work_on(reruns, self._rerun)

    def _work_on(self, slots: Slots, attempt: Callable[[Slots, Trial], None]) -> None:
        while slots.unfinished():
            self._listen()
            trial = slots.take(self.searching.sampler)
            if trial is None:
                time.sleep(IDLE_SECONDS)
                continue
            try:
                attempt(slots, trial)
            except LeaseLostError:
                self.say(f"trial {trial.number}: another worker has it by now")
            except BaseException:
                slots.give_back(trial)
                raise

    def _try(self, slots: Slots, trial: Trial) -> None:
        setting = self.searching.proposer.draw(trial)
        other = slots.twin(trial, setting)
        if other is not None:
            self._follow(slots, trial, other)
            return
        name = f"t{trial.number:03d} {shown(setting)}"
        try:
            experiment = self.searching.place.variations.experiment(setting)
        except ExperimentErrors as errors:
            self._finish(slots, trial, Ended("FAIL", reason=str(errors.problems[0])), name)
            return
        run = TrialRun(self.searching.directory(trial.number), self.data)
        card = self._card(trial.number, name, setting)
        self._run(slots, trial, run, experiment, card)

    def _rerun(self, slots: Slots, trial: Trial) -> None:
        frozen = slots.trials()[trial.number]
        setting: Setting = frozen.user_attrs[SETTING]
        seed = frozen.user_attrs[SEED]
        name = f"best {frozen.user_attrs[RANK]} seed {seed} {shown(setting)}"
        run = TrialRun(self.searching.rerun_directory(frozen), self.data)
        experiment = self.searching.rerun_experiment(frozen)
        card = self._card(trial.number, name, {**setting, "seed": seed}, "rerun")
        self._run(slots, trial, run, experiment, card)

    def _card(self, number: int, name: str, setting: Setting, kind: str = "trial") -> TrialCard:
        params = {key: shown_value(value) for key, value in list(setting.items())[:MAX_PARAMS]}
        metric, direction = self.searching.search.objectives[0]
        return TrialCard(number, name[:120], kind, params, f"{direction} {metric}")

    def _metrics(self) -> list[str]:
        search = self.searching.search
        return [*(name for name, _ in search.objectives), *search.require]

    def _run(
        self, slots: Slots, trial: Trial, run: TrialRun, experiment: Experiment, card: TrialCard
    ) -> None:
        run.prepare(experiment, card)
        run.start()
        self.say(f"{card.name}: started")
        readings = Readings(run.directory.path, list(experiment.stages), self._metrics())
        try:
            ended = self._watch(slots, trial, run, readings)
        except BaseException:
            run.stop()
            raise
        if ended.state != "WAITING":
            run.settle()
        self._finish(slots, trial, ended, card.name)

    def _watch(self, slots: Slots, trial: Trial, run: TrialRun, readings: Readings) -> Ended:
        """Follow a run to its end, renewing the lease and asking the pruner on the way."""
        minutes = self.searching.search.minutes
        deadline = time.monotonic() + (60 * minutes if minutes else math.inf)
        beat_at = time.monotonic() + LEASE_SECONDS
        while True:
            self._listen()
            code = run.returned()  # before the readings: what it wrote last is read below
            pruned = self._report(trial, readings)
            if code is not None:
                return self._ended(code, trial, run, readings)
            if pruned:
                run.stop("pruned")
                return Ended("PRUNED")
            if time.monotonic() > deadline:
                run.stop("timeout")
                return Ended("FAIL", reason=f"it took longer than {minutes:g} minutes")
            if time.monotonic() > beat_at:
                beat_at = time.monotonic() + LEASE_SECONDS
                beat(run.directory.path)
                if not slots.beat(trial):
                    raise LeaseLostError
            time.sleep(POLL_SECONDS)

    def _report(self, trial: Trial, readings: Readings) -> bool:
        """Tell the study what is new; whether the pruner has seen enough."""
        news = list(readings.news())
        search = self.searching.search
        if search.prune is None or len(search.objectives) > 1:
            return False
        objective = search.objectives[0][0]
        known = trial.study.trials[trial.number].intermediate_values if news else {}
        reported = [(s, found[objective]) for s, found in news if objective in found]
        for step, value in reported:
            if step not in known:
                trial.report(value, step)
        return bool(reported) and trial.should_prune()

    def _ended(self, code: int, trial: Trial, run: TrialRun, readings: Readings) -> Ended:
        if code == 0:
            return judge(self.searching, readings)
        if code < 0:  # by a signal, and not ours: the system was out of memory, or somebody did it
            killed = trial.user_attrs.get(KILLED, 0) + 1
            trial.set_user_attr(KILLED, killed)
            word = signal.Signals(-code).name
            if killed < MOST_KILLED:
                return Ended("WAITING", reason=f"killed by {word}")
            reason = f"killed by {word} {killed} times: it may need more memory than there is"
            return Ended("FAIL", reason=reason)
        return Ended("FAIL", reason=run.last_words() or f"exit code {code}")

    def _finish(self, slots: Slots, trial: Trial, ended: Ended, name: str) -> None:
        from optuna.trial import TrialState

        if ended.state == "WAITING":
            slots.give_back(trial)
            self.say(f"{name}: {ended.reason}; goes on from its checkpoint")
            return
        for key, value in (ended.constraints or {}).items():
            trial.set_constraint(key, value)
        attributes: dict[str, Any] = {REASON: ended.reason} if ended.reason else {}
        slots.finish(trial, TrialState[ended.state], ended.values, attributes)
        told = " ".join(f"{value:.5g}" for value in ended.values or ())
        self.say(f"{name}: {ended.state.lower()} {told or ended.reason}".rstrip())

    def _follow(self, slots: Slots, trial: Trial, other: FrozenTrial) -> None:
        """End a slot like an earlier one with the same setting, without running it twice."""
        from optuna.trial import TrialState

        if other.state == TrialState.WAITING:  # it is taken first, having the lower number
            slots.give_back(trial)
            return
        beat_at = time.monotonic() + LEASE_SECONDS
        while not other.state.is_finished():
            self._listen()
            time.sleep(IDLE_SECONDS)
            if time.monotonic() > beat_at:
                beat_at = time.monotonic() + LEASE_SECONDS
                if not slots.beat(trial):
                    raise LeaseLostError
            other = slots.trials()[other.number]
            if other.state == TrialState.WAITING:
                slots.give_back(trial)
                return
        for step, value in other.intermediate_values.items():
            trial.report(value, step)
        for key, value in other.constraints.items():
            trial.set_constraint(key, value)
        values = other.values if other.state == TrialState.COMPLETE else None
        slots.finish(trial, other.state, values, {TWIN: other.number})
        self.say(f"t{trial.number:03d}: the setting of trial {other.number}, not run twice")

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.stopped = signal.Signals(number)

    def _listen(self) -> None:
        if self.stopped is not None:
            raise WorkerStopped(self.stopped.name)


def judge(searching: Searching, readings: Readings) -> Ended:
    """What a run that came to its end is worth."""
    search, latest = searching.search, readings.latest
    for name in (*(name for name, _ in search.objectives), *search.require):
        if name not in latest:
            known = ", ".join(sorted(k for k in readings.seen if k.startswith(("val/", "test/"))))
            return Ended(
                "FAIL", reason=f"the run never recorded {name}; held-out metrics: {known or 'none'}"
            )
        if not math.isfinite(latest[name]):
            return Ended("FAIL", reason=f"{name} is {latest[name]}")
    constraints: dict[str, float] = {}
    for name, bound in search.require.items():
        if bound.above is not None:
            constraints[f"{name} above"] = bound.above - latest[name]
        if bound.below is not None:
            constraints[f"{name} below"] = latest[name] - bound.below
    values = tuple(latest[name] for name, _ in search.objectives)
    return Ended("COMPLETE", values, constraints=constraints)


def run_worker(searching: Searching, data: Path, say: Say) -> None:
    """Work until everything is finished or a signal comes."""
    with suppress(WorkerStopped):
        SlotWorker(searching, data, say).work()
