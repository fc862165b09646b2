"""The shipper's process: `python -m lit_eve.tracking.ship RUN_DIR --uri URI --watch PID`.

It reads spools and talks to MLflow so that the training does not have to. It ends when it is told
to (a line `finish SECONDS` on its standard input) or when the watched process is gone; in between
no error of the store ends it.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from lit_eve.tracking.batches import RunDeletedError
from lit_eve.tracking.delivery import SYSTEM_FOLDER
from lit_eve.tracking.fleet import LOCK_FILE, Fleet
from lit_eve.tracking.liveness import (
    alive,
    beat,
    created_at,
    last_status,
    mark_if_crashed,
    mark_killed,
    owner,
    process_alive,
    tracking_folder,
)
from lit_eve.tracking.redact import redact
from lit_eve.tracking.searches import family
from lit_eve.tracking.spool import Spool, read_events
from lit_eve.tracking.store import Store, connect, locate
from lit_eve.tracking.system import SystemSampler

URI_VARIABLE = "LIT_EVE_TRACKING_URI"
LOG_FILE = "shipper.log"
DELIVERED, UNDELIVERED, DELETED = 0, 3, 4
MAX_WAIT = 30.0
NICENESS = 10
"""At 19 the import of mlflow alone takes minutes beside a training that fills every core."""

AFTER_DEATH_SECONDS = 60.0
"""For how long a store that is away is tried after the training has died."""

_log = logging.getLogger("lit_eve.tracking.ship")


class Shipping:
    """The loop: measure, send, wait; wait longer while the store is away."""

    def __init__(
        self,
        run_directory: Path,
        store: Store,
        watch: int,
        poll: float = 2.0,
        sample_every: float = 10.0,
    ) -> None:
        """Nothing is sent yet.

        Args:
            run_directory: `<runs>/<experiment>/<run id>`.
            store: where to.
            watch: the process that trains.
            poll: seconds between two looks at the spools.
            sample_every: seconds between two measurements of the machine.
        """
        self.run_directory = run_directory
        self.store = store
        self.watch = watch
        self.poll = poll
        self.sample_every = sample_every
        self.told = threading.Event()
        self.deadline: float | None = None
        self._fleet: Fleet | None = None
        self._failures = 0
        self._retry_at = 0.0
        self._orphaned = False
        self._sampler = SystemSampler(watch, run_directory)
        self._sample_at = 0.0
        self._watch_created = created_at(watch)
        self._system: Spool | None = None
        self._began = 0.0

    def finish(self, seconds: float) -> None:
        """Send the rest and end; a store that is away is tried for so many seconds.

        A store that takes what is sent is not left before it has all, however slow it is.
        """
        self.deadline = time.monotonic() + seconds
        self._retry_at = 0.0
        self.told.set()

    def run(self) -> int:
        """Ship until told to finish, or until the watched process is gone. The exit code."""
        while True:
            finishing = self.deadline is not None
            if not finishing and not process_alive(self.watch, self._watch_created):
                self._training_is_gone()
                continue
            self._measure()
            trials = self._trials_that_live() if self._orphaned else []
            try:
                delivered = self._try_to_ship()
            except RunDeletedError as error:
                _log.warning("%s", error)
                return DELETED
            if finishing and delivered and not trials:
                return DELIVERED
            if self.deadline is None:
                self.told.wait(self.poll)
            elif not delivered and time.monotonic() > self.deadline:
                return UNDELIVERED
            else:
                time.sleep(self.poll if trials else 0.2)

    def _training_is_gone(self) -> None:
        if owner(self.run_directory) not in (None, self.watch):
            self.finish(0.0)  # the run was resumed: its new process has a shipper of its own
            return
        if last_status(tracking_folder(self.run_directory)) == "RUNNING":
            _log.warning("process %d is gone without a word: the run is marked.", self.watch)
            mark_killed(self.run_directory)
        self._orphaned = True
        self.finish(AFTER_DEATH_SECONDS)

    def _trials_that_live(self) -> list[Path]:
        """Trials of a search that died: they end with it, and who could not say so is marked.

        None once the search was started again: its new shipper waits for this one to end.
        """
        if owner(self.run_directory) != self.watch:
            return []
        trials = family(self.run_directory)[1:]
        return [t for t in trials if not mark_if_crashed(t) and _running(t)]

    def _try_to_ship(self) -> bool:
        """Send; False if the store is away or its next try is not due."""
        if time.monotonic() < self._retry_at:
            return False
        try:
            if self._fleet is None:
                self._fleet = Fleet(connect(self.store), self.store, self.run_directory)
            self._fleet.ship()
        except RunDeletedError:
            raise
        except Exception as error:  # any library's way to say that the store is away
            self._failures += 1
            wait = min(MAX_WAIT, self.poll * 2.0 ** min(self._failures, 10))
            self._retry_at = time.monotonic() + wait
            if self._failures in (1, 5) or self._failures % 60 == 0:
                text = redact(str(error)).splitlines()[:1]
                _log.warning("the store is away (%s); trying on.", text)
            return False
        if self._failures:
            _log.warning("the store is back.")
        self._failures = 0
        return True

    def _measure(self) -> None:
        if self.deadline is not None or time.monotonic() < self._sample_at:
            return
        self._sample_at = time.monotonic() + self.sample_every
        values = self._sampler.sample()
        with suppress(OSError):  # a full disk is the training's affair
            beat(self.run_directory)
            if values:
                spool = self._system_spool()
                spool.metrics(values, round(time.time() - self._began))

    def _system_spool(self) -> Spool:
        """Its steps are seconds since the run was first measured, over all resumes."""
        if self._system is None:
            folder = tracking_folder(self.run_directory) / SYSTEM_FOLDER
            self._system = Spool(folder, rank=0)
            first = next(read_events(self._system.path))
            self._began = first[0]["t"] / 1000
        return self._system


def _running(run: Path) -> bool:
    return last_status(tracking_folder(run)) == "RUNNING" and alive(run)


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m lit_eve.tracking.ship", description=__doc__)
    parser.add_argument("run_directory", type=Path)
    parser.add_argument("--uri", help=f"the store; by default ${URI_VARIABLE}")
    parser.add_argument("--watch", type=int, required=True, metavar="PID")
    parser.add_argument("--poll", type=float, default=2.0, metavar="SECONDS")
    options = parser.parse_args(arguments)
    uri = options.uri or os.environ.get(URI_VARIABLE)
    if not uri:
        parser.error(f"no store: pass --uri or set {URI_VARIABLE}.")
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):  # the training decides when it is over
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    with suppress(OSError, AttributeError):
        os.nice(NICENESS)
    run_directory = options.run_directory.resolve()
    shipping = Shipping(run_directory, locate(uri), options.watch, options.poll)
    threading.Thread(target=_listen, args=(shipping,), daemon=True).start()
    lock = FileLock(tracking_folder(run_directory) / LOCK_FILE)
    while True:  # the shipper of a killed process may still be sending the rest
        with suppress(Timeout), lock.acquire(timeout=1.0):
            return shipping.run()
        late = shipping.deadline is not None and time.monotonic() > shipping.deadline
        if late or not process_alive(options.watch):
            return UNDELIVERED


def _listen(shipping: Shipping) -> None:
    for line in sys.stdin:
        word, _, seconds = line.partition(" ")
        if word == "finish":
            shipping.finish(float(seconds))


if __name__ == "__main__":
    sys.exit(main())
