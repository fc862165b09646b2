"""A search whose workers are killed with -9 every few seconds: nothing lost, nothing twice.

Run:  uv run python -m benchmarks.search_survives [sqlite] [postgresql] [--every 20] [--into F]

For each storage: `lit-eve search benchmarks/search_survives.yaml --workers 2`, tracked in MLflow,
while one of its workers is killed every so many seconds. In the end the study and the
MLflow store are read: every trial is complete or pruned, each of its steps was recorded once, and
MLflow shows each trial once, below its search, with its stage. PostgreSQL is a server of this
script's own on loopback (its programs come from Debian's `postgresql`).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from benchmarks.measuring import row
from lit_eve.tracking.server import _free_port
from lit_eve.tracking.spool import EVENTS_FILE, read_events
from lit_eve.tracking.store import connect, locate

FILE = Path(__file__).with_suffix(".yaml")
WORKERS = 2
FIRST_KILL = 15.0
"""Seconds before the first worker dies."""


@contextmanager
def postgresql(folder: Path) -> Iterator[str]:
    """The address of a database server of our own."""
    found = [shutil.which("initdb"), *map(str, Path("/usr/lib/postgresql").glob("*/bin/initdb"))]
    program = next(filter(None, found), None)
    if program is None:
        raise SystemExit("no initdb here: install Debian's postgresql.")
    programs, data = Path(program).resolve().parent, folder / "postgresql"
    data.mkdir()
    user: dict[str, Any] = {}
    if os.geteuid() == 0:  # PostgreSQL refuses to be root's
        shutil.chown(data, "postgres")
        for above in (folder, *folder.parents[:-1]):
            above.chmod(above.stat().st_mode | 0o011)
        user = {"user": "postgres"}
    quiet: dict[str, Any] = {"check": True, "stdout": subprocess.DEVNULL, "cwd": data, **user}
    make = [str(programs / "initdb"), "-D", str(data), "-A", "trust", "-U", "search", "--no-sync"]
    subprocess.run(make, **quiet)
    port = _free_port(5490)
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={data}"
    control = [str(programs / "pg_ctl"), "-D", str(data), "-w"]
    subprocess.run([*control, "-l", str(data / "log"), "-o", options, "start"], **quiet)
    try:
        yield f"postgresql+psycopg2://search@127.0.0.1:{port}/postgres"
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], **quiet)


def workers_of(search: psutil.Process) -> list[psutil.Process]:
    """Processes of the search that try slots."""
    found = []
    for child in search.children():
        try:
            if "worker" in child.cmdline():
                found.append(child)
        except psutil.Error:
            continue
    return found


def searched(root: Path, storage: str, every: float, trials: int) -> tuple[int, float]:
    """Run the search to its end; how often a worker was killed, and minutes."""
    command = [sys.executable, "-m", "lit_eve", "search", str(FILE), f"search.trials={trials}"]
    tracking = f"{{type: mlflow, uri: 'sqlite:///{root}/mlflow.db'}}"
    command += [f"search.storage={storage}", f"tracking={tracking}"]
    command += ["--workers", str(WORKERS), "--runs", str(root / "runs")]
    command += ["--data", str(root.parent / "data")]
    began, kills = time.monotonic(), 0
    with (root / "search.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        search, next_kill = psutil.Process(process.pid), time.monotonic() + FIRST_KILL
        while process.poll() is None:
            time.sleep(0.5)
            if time.monotonic() < next_kill:
                continue
            alive = workers_of(search)
            if len(alive) == WORKERS:
                alive[kills % WORKERS].kill()
                kills += 1
                next_kill = time.monotonic() + every
    print((root / "search.log").read_text(errors="replace")[-2500:])
    assert process.returncode == 0, process.returncode
    return kills, (time.monotonic() - began) / 60


def study_states(storage: str) -> tuple[Counter[str], int]:
    """Trials by state, and how often one was taken up again."""
    import optuna

    trials = optuna.load_study(study_name="survives", storage=storage).get_trials()
    assert [trial.number for trial in trials] == list(range(len(trials)))
    again = sum(trial.user_attrs.get("taken", 1) - 1 for trial in trials)
    return Counter(trial.state.name.lower() for trial in trials), again


def repeated_steps(run: Path) -> int:
    """Steps whose held-out loss a trial recorded more than once."""
    events = read_events(run / "train" / "tracking" / EVENTS_FILE)
    steps = [e["s"] for e, _ in events if e["k"] == "metrics" and "val/psnr" in e["v"]]
    return len(steps) - len(set(steps))


def shown(root: Path, trials: int) -> None:
    """MLflow has the search, each trial once below it, and each trial's stage."""
    client = connect(locate(f"sqlite:///{root}/mlflow.db"))
    experiment = client.get_experiment_by_name("survives")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    kinds = Counter(run.data.tags["lit_eve.kind"] for run in runs)
    row("in MLflow", *(f"{count} {kind}" for kind, count in sorted(kinds.items())))
    assert (kinds["search"], kinds["trial"]) == (1, trials), kinds
    [search] = [run for run in runs if run.data.tags["lit_eve.kind"] == "search"]
    below = [r for r in runs if r.data.tags.get("mlflow.parentRunId") == search.info.run_id]
    assert len({run.data.tags["lit_eve.trial"] for run in below}) == trials
    assert {run.info.status for run in runs} == {"FINISHED"}, Counter(
        (run.data.tags["lit_eve.kind"], run.info.status) for run in runs
    )


def survives(root: Path, storage: str, every: float, trials: int) -> None:
    """One search, with what it left behind."""
    kills, minutes = searched(root, storage, every, trials)
    states, again = study_states(storage)
    row("trials", *(f"{count} {state}" for state, count in sorted(states.items())))
    row("workers killed", str(kills), f"{again} taken again", f"{minutes:.1f} minutes")
    assert set(states) <= {"complete", "pruned"}, states
    assert sum(states.values()) == trials
    found = sorted((root / "runs" / "survives").glob("trial-*"))
    double = {run.name: count for run in found if (count := repeated_steps(run))}
    row("steps recorded twice", str(sum(double.values())))
    assert not double, double
    resumed = sum("resuming from" in (run / "trial.log").read_text() for run in found)
    row("trials that went on from a checkpoint", str(resumed))
    shown(root, trials)


def main() -> None:
    """Print what became of each search."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = ("sqlite", "postgresql")
    parser.add_argument("storages", nargs="*", default=list(names), metavar="|".join(names))
    parser.add_argument("--every", type=float, default=20.0, help="seconds between two kills")
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--into", type=Path, help="folder to keep; a temporary one if absent")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    with tempfile.TemporaryDirectory() as folder:
        for name in options.storages:
            print(json.dumps({"storage": name, "every": options.every, "trials": options.trials}))
            root = (options.into or Path(folder)).absolute() / name
            root.mkdir(parents=True)
            if name == "sqlite":
                survives(root, f"sqlite:///{root}/search.db", options.every, options.trials)
                continue
            with postgresql(root) as storage:
                survives(root, storage, options.every, options.trials)


if __name__ == "__main__":
    main()
