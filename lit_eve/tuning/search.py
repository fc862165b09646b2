"""A search from its start to its report: it hands out, watches and tells; it never trains."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from filelock import FileLock, Timeout

from lit_eve.running.directory import write_atomically
from lit_eve.tuning import report
from lit_eve.tuning.launching import PR_SET_PDEATHSIG
from lit_eve.tuning.record import Record
from lit_eve.tuning.slots import Slots
from lit_eve.tuning.study import Place, Searching
from lit_eve.tuning.worker import Say

POLL_SECONDS = 2.0
REPORT_SECONDS = 30.0
"""The report is drawn at most this often: its plots cost a second of a core."""
MOST_FAILURES = 3
"""A worker that ends with an error so often in a row will not do better."""
FIRST_TRIALS = 5
"""So many trials that all fail, and nothing else, end the search: the rest would fail as well."""
STOP_SECONDS = 90.0


class SearchError(RuntimeError):
    """The search cannot go on."""


class SearchStopped(RuntimeError):  # noqa: N818  # nothing went wrong
    """A signal ended the search in good order; started again, it goes on."""

    def __init__(self, name: str) -> None:
        super().__init__(f"stopped by {name}; the same command goes on from here")
        self.name = name


def search(place: Place, workers: int, say: Say) -> Searching:
    """Run a search until every trial is finished, or go on with one.

    Args:
        place: the search.
        workers: processes to start on this machine; 0 to leave it to `lit-eve worker`.
        say: gets the lines for the user.

    Raises:
        SearchError: if the workers, or all first trials, fail.
        SearchStopped: if SIGTERM or SIGINT came.
        ValueError: for what the user can mend.
    """
    place.folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(place.folder / "search.lock")
    try:
        lock.acquire(timeout=1.0)
    except Timeout as error:
        raise ValueError(
            f"this search is running already. Help it with: lit-eve worker {place.file}"
        ) from error
    with lock:
        searching = Searching(place, create=True)
        write_atomically(place.folder / "search.yaml", place.file.read_text(encoding="utf-8"))
        say(f"{searching.name}: {len(searching.trials.trials())} trials in {place.root}")
        with Record(searching, say) as record:
            _Supervisor(searching, record, workers, say).run()
    return searching


@dataclass
class _Supervisor:
    """Keeps workers at work and the record up to date."""

    searching: Searching
    record: Record
    workers: int
    say: Say
    running: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)
    failures: int = 0
    stopped: signal.Signals | None = None
    _said: set[tuple[str, int]] = field(default_factory=set)
    _drawn_at: float = 0.0

    def run(self) -> None:
        """Until nothing waits or runs."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        try:
            while (reruns := self._phase()) is not None or self.searching.trials.unfinished():
                if reruns is not None and not reruns.unfinished():
                    break
                if self.stopped is not None:
                    raise SearchStopped(self.stopped.name)
                self._keep_workers()
                self._tell(reruns)
                self._give_up_early()
                time.sleep(POLL_SECONDS)
        finally:
            self._end_workers()
            self._tell(self._phase(), last=True)

    def _phase(self) -> Slots | None:
        """The reruns once they are there."""
        return self.searching.reruns()

    def _keep_workers(self) -> None:
        """Start what is missing: a killed worker is replaced."""
        for number in range(self.workers):
            process = self.running.get(number)
            if process is not None and process.poll() is None:
                continue
            if process is not None and process.returncode > 0:
                self.failures += 1
                if self.failures >= MOST_FAILURES:
                    raise SearchError(
                        f"worker {number} ended {self.failures} times with an error:\n"
                        + _last_words(self._log(number))
                    )
            elif process is not None and process.returncode < 0:
                self.say(f"worker {number} was killed; another one takes its place")
            self.running[number] = self._start(number)

    def _start(self, number: int) -> subprocess.Popen[bytes]:
        place = self.searching.place
        command = [sys.executable, "-m", "lit_eve", "worker", str(place.file), *place.overrides]
        command += ["--runs", str(place.runs), "--data", str(place.data)]
        command += ["--tiny"] if place.tiny else []
        with self._log(number).open("ab") as log:
            return subprocess.Popen(
                command,
                env=dict(os.environ) | _devices(number, self.workers),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the search, which ends its workers
                preexec_fn=_share(number, self.workers, os.getpid()),
            )

    def _log(self, number: int) -> Path:
        return self.searching.place.folder / f"worker-{number}.log"

    def _tell(self, reruns: Slots | None, last: bool = False) -> None:
        """Say and record what has ended since the last time."""
        new = False
        for kind, slots in (("trial", self.searching.trials), ("rerun", reruns)):
            for trial in slots.trials() if slots else []:
                if not trial.state.is_finished() or (kind, trial.number) in self._said:
                    continue
                self._said.add((kind, trial.number))
                self.failures = 0
                new = True
        if new:
            self.say(report.verdict(self.searching))
        due = time.monotonic() - self._drawn_at > REPORT_SECONDS
        if (new and due) or last:
            self._drawn_at = time.monotonic()
            self.record.update(report.write(self.searching, reruns), reruns)

    def _give_up_early(self) -> None:
        """Stop when nothing but failures has come.

        Raises:
            SearchError: with the reasons.
        """
        ended = [t for t in self.searching.trials.trials() if t.state.is_finished()]
        if len(ended) < FIRST_TRIALS or any(t.state.name != "FAIL" for t in ended):
            return
        reasons = dict.fromkeys(str(t.user_attrs.get("reason", "unknown")) for t in ended)
        raise SearchError(
            f"all of the first {len(ended)} trials failed, so the others most likely would too:\n  "
            + "\n  ".join(reasons)
            + "\nMend the file, remove the search's folder, and start again."
        )

    def _end_workers(self) -> None:
        for process in self.running.values():
            with suppress(ProcessLookupError):
                process.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        for process in self.running.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.1, deadline - time.monotonic()))
            if process.poll() is None:
                process.kill()

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.stopped = signal.Signals(number)


def _share(number: int, count: int, parent: int) -> Any:
    """What a new worker does first: take its share of the cores, and end with the search."""

    def ask() -> None:
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != parent:  # it died in between
                os._exit(1)
            cores = sorted(os.sched_getaffinity(0))
            os.sched_setaffinity(0, cores[number % len(cores) :: count] or cores)

    return ask


def _devices(number: int, count: int) -> dict[str, str]:
    """The GPUs of one of several workers: each has its own."""
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    if shown is None:
        found = sorted(int(p.name[6:]) for p in Path("/dev").glob("nvidia[0-9]*"))
        devices: Sequence[str] = [str(device) for device in found]
    else:
        devices = [device for device in shown.split(",") if device]
    if len(devices) < 2 or count < 2:
        return {}
    return {"CUDA_VISIBLE_DEVICES": ",".join(devices[number % len(devices) :: count])}


def _last_words(log: Path) -> str:
    """What a worker said before it ended; a traceback stays in its log."""
    lines = log.read_text(errors="replace").splitlines()
    told = [line for line in lines if line.startswith("error ")]
    return "\n".join([*(told[-1:] or lines[-8:]), f"All of it: {log}"])
