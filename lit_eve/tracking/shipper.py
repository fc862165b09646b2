"""Start, end and repeat the shipping of a run. Imports no mlflow: that is the shipper's burden."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from lit_eve.tracking.fleet import LOCK_FILE, Fleet
from lit_eve.tracking.liveness import claim, mark_if_crashed, tracking_folder
from lit_eve.tracking.redact import redact
from lit_eve.tracking.searches import family
from lit_eve.tracking.ship import DELETED, DELIVERED, LOG_FILE, UNDELIVERED, URI_VARIABLE
from lit_eve.tracking.spool import environment_rank
from lit_eve.tracking.store import QUIET, Store, connect, locate

PATIENCE_SECONDS = 300.0
"""For how long the end of a run waits for a store that takes what is sent."""
WORD_SECONDS = 3.0
"""After so many the user is told what is waited for."""


class SyncError(RuntimeError):
    """The store cannot be reached, or somebody else is shipping the run."""


@dataclass(frozen=True)
class Synced:
    """What a `sync` did: events sent now, events the store refuses, and the run's id there."""

    num_sent: int
    num_refused: int
    run_id: str


class Shipper:
    """A process that ships one run while it trains."""

    def __init__(self, run_directory: Path, store: Store, poll: float = 2.0) -> None:
        """Start it, on rank 0 only. It returns at once: the process imports mlflow by itself."""
        self.run_directory = Path(run_directory).resolve()
        self.store = store
        self.poll = poll
        self._process: subprocess.Popen[bytes] | None = None
        if environment_rank() == 0:
            claim(self.run_directory)
            self._process = self._start()

    @property
    def pid(self) -> int | None:
        """The shipper's process, None on other ranks."""
        return self._process.pid if self._process else None

    @property
    def log(self) -> Path:
        """What the shipper had to say."""
        return tracking_folder(self.run_directory) / LOG_FILE

    def finish(self, timeout: float = 30.0, say: Callable[[str], None] | None = None) -> bool:
        """Wait until the rest is sent: `timeout` seconds for a store that is away, longer for one
        that is slow.

        Args:
            timeout: seconds in which a store that is away may come back.
            say: gets a line for the user when it takes a while. Ctrl-C ends the waiting only.

        Returns:
            Whether everything has arrived; if not, `sync` sends it later. A run that was deleted
            in the UI wants nothing more and counts as arrived. True on other ranks.
        """  # noqa: D205
        if self._process is None:
            return True
        code = self._end(self._process, timeout, say)
        if code not in (DELIVERED, UNDELIVERED, DELETED):
            self._process = self._start()  # somebody killed it: its successor goes on from there
            code = self._end(self._process, timeout, say)
        return code in (DELIVERED, DELETED)

    def _end(
        self, process: subprocess.Popen[bytes], timeout: float, say: Callable[[str], None] | None
    ) -> int:
        with contextlib.suppress(OSError, ValueError):  # it may have ended by itself
            assert process.stdin is not None
            process.stdin.write(f"finish {timeout}\n".encode())
            process.stdin.close()
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(WORD_SECONDS)
            if say is not None:
                say(f"sending the rest to {self.store.shown} ...")
            return process.wait(timeout + PATIENCE_SECONDS)
        except KeyboardInterrupt:  # it goes on by itself
            return UNDELIVERED
        except subprocess.TimeoutExpired:  # a call of its own hangs
            process.kill()
            process.wait()
            return UNDELIVERED

    def _start(self) -> subprocess.Popen[bytes]:
        environment = (
            QUIET
            | dict(os.environ)
            | {
                URI_VARIABLE: self.store.uri,  # not on the command line: a login would show in `ps`
                "OMP_NUM_THREADS": "1",
                "CUDA_VISIBLE_DEVICES": "",
            }
        )
        command = [sys.executable, "-m", "lit_eve.tracking.ship", str(self.run_directory)]
        command += ["--watch", str(os.getpid()), "--poll", str(self.poll)]
        with self.log.open("ab") as log:
            return subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the training
            )


def start_shipper(run_directory: Path, uri: str, *, base: Path | None = None) -> Shipper:
    """Ship a run from now on, in a process of its own.

    Args:
        run_directory: `<runs>/<experiment>/<run id>`.
        uri: the store, as the experiment file names it.
        base: what a relative sqlite path starts from, by default the current directory.

    Raises:
        StoreError: if MLflow could not use the address; that the store is away is no error.
    """
    return Shipper(run_directory, locate(uri, base))


def sync(run_directory: Path, uri: str, *, base: Path | None = None) -> Synced:
    """Send what the store does not have yet. Doing it again sends nothing.

    Args:
        run_directory: `<runs>/<experiment>/<run id>`; that of a search stands for all its trials.
        uri: the store.
        base: what a relative sqlite path starts from, by default the current directory.

    Raises:
        StoreError: if MLflow could not use the address.
        SyncError: if the store is away, or the run's own shipper is at work.
        RunDeletedError: if the run was deleted in the UI.
    """
    from lit_eve.tracking.batches import RunDeletedError

    run_directory = Path(run_directory).resolve()
    store = locate(uri, base)
    for run in family(run_directory):
        mark_if_crashed(run)
    try:
        with FileLock(tracking_folder(run_directory) / LOCK_FILE, timeout=5.0):
            fleet = Fleet(connect(store), store, run_directory)
            fleet.ship()
            return Synced(fleet.num_sent, fleet.num_refused, fleet.run_id)
    except Timeout as error:
        raise SyncError(
            f"{run_directory} is being shipped by another process, so everything arrives anyway. "
            "Sync again when the run has ended."
        ) from error
    except RunDeletedError:
        raise
    except Exception as error:  # any library's way to say that the store is away
        raise SyncError(
            f"{store.shown} does not take the run: {redact(str(error))}. Nothing is lost: the "
            f"events stay in {run_directory}. Sync again when the store is reachable."
        ) from error
