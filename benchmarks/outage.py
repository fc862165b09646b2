"""A real MLflow server that is killed again and again beside a training, and one that never was.

Run:  uv run python -m benchmarks.outage

One process takes steps of fixed arithmetic and records ten metrics at each, with the shipper that
every run has. Meanwhile the server is killed with -9 and started again; each step is labelled by
whether the server answered, so both kinds meet the same machine. Then a second run is recorded
while nothing listens at its address at all, and synced. In the end the store is read: every point
has to be there once, in the order of its recording.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.measuring import row
from lit_eve.tracking.server import PORTS_TO_TRY, _free_port, _start, _wait
from lit_eve.tracking.shipper import start_shipper, sync
from lit_eve.tracking.spool import Spool
from lit_eve.tracking.store import Store, connect, locate

PORT = 5480
OUTAGES = 3
STEPS = 150
"""Steps of each period: with the server, and without."""
SIDE = 700
METRICS = {f"train/metric_{n}": 0.1234567 * n for n in range(10)}


@contextmanager
def server(store: Store) -> Iterator[str]:
    """A server on a port of its own, killed with -9 in the end."""
    process, url, log = _start(store, PORT)
    try:
        _wait(process, url, log)
        yield url
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


class Training:
    """Steps of one matrix product each, recorded."""

    def __init__(self, run: Path) -> None:
        self.spool = Spool(run / "learn" / "tracking", rank=0)
        self.own = Spool(run / "tracking", rank=0)
        for spool in (self.own, self.spool):
            spool.status("RUNNING")
        self.step = 0
        self.matrix = np.random.default_rng(0).random((SIDE, SIDE), dtype=np.float32)

    def steps(self, count: int) -> list[tuple[float, float]]:
        """Wall and processor seconds of each."""
        taken = []
        for _ in range(count):
            wall, cpu = time.perf_counter(), time.thread_time()
            for _ in range(2):
                self.matrix @ self.matrix
            self.spool.metrics(METRICS, self.step)
            self.step += 1
            taken.append((time.perf_counter() - wall, time.thread_time() - cpu))
        return taken

    def end(self) -> None:
        for spool in (self.spool, self.own):
            spool.status("FINISHED")
            spool.close()


def check(store: Store, run: str, steps: int) -> None:
    """Every point of every metric is there once, in the order of its recording."""
    client = connect(store)
    experiment = client.get_experiment_by_name("outage")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    parents = {r.info.run_id: r.data.tags["mlflow.runName"] for r in runs}
    [stage] = [r for r in runs if parents.get(r.data.tags.get("mlflow.parentRunId", "")) == run]
    [own] = [r for r in runs if r.info.run_name == run]
    assert (stage.info.status, own.info.status) == ("FINISHED", "FINISHED")
    for key, value in METRICS.items():
        history = client.get_metric_history(stage.info.run_id, key)
        history.sort(key=lambda point: (point.timestamp, point.step))
        assert [point.step for point in history] == list(range(steps)), key
        assert {point.value for point in history} == {value}
    row(run, f"{steps * len(METRICS)} points", "once, in order")


def killed(root: Path, store: Store) -> None:
    """A server that is killed in the middle of a run, three times."""
    run = root / "outage" / "killed"
    training = Training(run)
    there: list[tuple[float, float]] = []
    away: list[tuple[float, float]] = []
    with ExitStack() as last:
        url = last.enter_context(server(store))
        shipper = start_shipper(run, url)
        time.sleep(10.0)  # it imports MLflow
        for outage in range(OUTAGES):
            there += training.steps(STEPS)
            last.close()
            away += training.steps(STEPS)
            assert last.enter_context(server(store)) == url, outage
        training.end()
        assert shipper.finish(120.0), "the server was there and did not get everything"
    row("", "with the server", "while it was away", "ratio")
    for number, name in enumerate(("wall, ms a step", "processor, ms a step")):
        one, other = (median(step[number] for step in steps) for steps in (there, away))
        row(name, f"{one * 1e3:.2f}", f"{other * 1e3:.2f}", f"{other / one:.3f}")
    slowest = max(step[0] for step in away)
    row("slowest step while away, ms", f"{slowest * 1e3:.1f}", f"of {len(away)}")


def unreachable(root: Path, store: Store) -> None:
    """A server that is not there for a whole run."""
    run = root / "outage" / "unreachable"
    training = Training(run)
    shipper = start_shipper(run, f"http://127.0.0.1:{_free_port(PORT + PORTS_TO_TRY)}")
    training.steps(STEPS)
    training.end()
    began = time.monotonic()
    assert not shipper.finish(1.0)
    row("end of a run without a server", f"{time.monotonic() - began:.1f} s")
    row("sent by the first sync", str(sync(run, store.uri).num_sent))
    row("sent by the second", str(sync(run, store.uri).num_sent))


def main() -> None:
    """Print how steps compare, and whether all has arrived."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        store = locate(f"sqlite:///{root}/mlflow.db")
        connect(store)
        killed(root, store)
        check(store, "killed", 2 * OUTAGES * STEPS)
        unreachable(root, store)
        check(store, "unreachable", STEPS)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
