"""One trial's run: an ordinary `lit-eve run` in a process of its own, watched through its spool.

The process has its own process group, so that a signal reaches all its ranks, and the kernel ends
it when its worker dies (Linux): no run trains on that nobody waits for.
"""

from __future__ import annotations

import ctypes
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lit_eve.running.directory import EXPERIMENT_FILE, RUN_VARIABLE, RunDirectory, write_atomically
from lit_eve.schema import Experiment
from lit_eve.tracking.liveness import created_at, mark_ended, process_alive
from lit_eve.tracking.searches import SHIPPED_VARIABLE, STOP_FILE, TrialCard, end_of
from lit_eve.tracking.spool import EVENTS_FILE, read_events

PROCESS_FILE = "trial-process.json"
LOG_FILE = "trial.log"
PR_SET_PDEATHSIG = 1
GRACE_SECONDS = 60.0
"""A run that was told to stop saves its last step; one that needs longer is killed."""


class TrialRun:
    """The run of one setting, in its directory."""

    def __init__(self, directory: Path, data: Path) -> None:
        """Args: the run's directory, and the root of prepared datasets."""
        self.directory, self.data = RunDirectory(directory.absolute()), data.absolute()
        self._process: subprocess.Popen[bytes] | None = None

    def prepare(self, experiment: Experiment, card: TrialCard) -> None:
        """Write what the run is, unless an earlier try did."""
        path = self.directory.path
        path.mkdir(parents=True, exist_ok=True)
        _end_earlier(path / PROCESS_FILE)
        (path / STOP_FILE).unlink(missing_ok=True)
        card.write(path)
        if not self.directory.experiment_file.is_file():
            write_atomically(self.directory.experiment_file, experiment.to_yaml())

    def start(self) -> None:
        """Start the run, or go on with it. Call it in the main thread: the kernel's promise to end
        the child with its parent holds for the thread that started it.
        """  # noqa: D205
        path = self.directory.path
        began = (path / "environment.json").is_file()
        word = ["resume", str(path)] if began else ["run", str(path / EXPERIMENT_FILE)]
        with (path / LOG_FILE).open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "lit_eve", *word, "--data", str(self.data)],
                env=dict(os.environ) | {RUN_VARIABLE: str(path), SHIPPED_VARIABLE: "yes"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_die_with(os.getpid()) if sys.platform == "linux" else None,
            )
        pid = self._process.pid
        record = {"pid": pid, "created": created_at(pid), "host": os.uname().nodename}
        write_atomically(path / PROCESS_FILE, json.dumps(record))

    def returned(self) -> int | None:
        """The exit code of the process; None while it runs."""
        return None if self._process is None else self._process.poll()

    def stop(self, state: str = "") -> None:
        """Let the run save and end; kill it if it does not.

        Args:
            state: what its status shall say in the end, such as `pruned`; empty for stopped.
        """
        if self._process is None:
            return
        if state:
            write_atomically(self.directory.path / STOP_FILE, state)
        self._signal(signal.SIGTERM)
        deadline = time.monotonic() + GRACE_SECONDS
        while self._process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        self._signal(signal.SIGKILL)  # its other ranks too
        self._process.wait()

    def settle(self) -> None:
        """Record how the run ended where it could not: a signal may find it before or after its
        training, when nobody listens.
        """  # noqa: D205
        path = self.directory.path
        stopped = (path / STOP_FILE).is_file()
        mark_ended(path, *(end_of(path) if stopped else ("FAILED", "killed")))

    def last_words(self) -> str:
        """Why the run failed, as it said itself."""
        try:
            lines = (self.directory.path / LOG_FILE).read_text(errors="replace").splitlines()
        except OSError:
            return ""
        words = [line.strip() for line in lines if line.strip()]
        told = [line for line in words if line.startswith("error ")]
        return (told or words or [""])[-1].removeprefix("error ")[:500]

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)


def _die_with(parent: int) -> Any:
    """What a new process does first: ask Linux to be killed when `parent` is."""

    def ask() -> None:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died in between
            os._exit(1)

    return ask


def _end_earlier(record: Path) -> None:
    """Make sure that the process of an earlier try is gone: two must not write one run."""
    try:
        found = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    if found["host"] != os.uname().nodename:
        return  # its worker has been silent for minutes
    if process_alive(found["pid"], found["created"]):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(found["pid"], signal.SIGKILL)
        while process_alive(found["pid"], found["created"]):
            time.sleep(0.05)


@dataclass
class Readings:
    """The numbers of a run's stages, read as they are written.

    Steps are counted over all stages: a later stage goes on where the one before it ended, so that
    the same step of two trials is the same place in their training.
    """

    run: Path
    stages: Sequence[str]
    metrics: Sequence[str]
    latest: dict[str, float] = field(default_factory=dict)
    """The last value of each metric that is asked for."""
    seen: set[str] = field(default_factory=set)
    """All keys that the run has recorded."""
    _offsets: dict[str, int] = field(default_factory=dict)
    _last_steps: dict[str, int] = field(default_factory=dict)

    def news(self) -> Iterator[tuple[int, Mapping[str, float]]]:
        """What was recorded since the last call: steps, and values of the metrics asked for."""
        before = 0
        for stage in self.stages:
            path = self.run / stage / "tracking" / EVENTS_FILE
            for event, offset in read_events(path, self._offsets.get(stage, 0)):
                self._offsets[stage] = offset
                if event["k"] != "metrics":
                    continue
                self.seen.update(event["v"])
                step = int(event["s"])
                self._last_steps[stage] = max(step, self._last_steps.get(stage, 0))
                found = {key: _number(event["v"][key]) for key in self.metrics if key in event["v"]}
                if found:
                    self.latest |= found
                    yield before + step, found
            before += self._last_steps.get(stage, 0)


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else math.nan
