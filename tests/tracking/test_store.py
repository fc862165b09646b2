from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lit_eve.tracking.store import connect, experiment_id, locate


def test_an_experiment_that_many_create_at_once_is_one(uri: str) -> None:
    store = locate(uri)
    start = threading.Barrier(6)

    def create() -> str:
        client = connect(store)
        start.wait()
        return experiment_id(client, store, "digits")

    with ThreadPoolExecutor(6) as pool:
        found = [pool.submit(create) for _ in range(6)]
        assert len({future.result() for future in found}) == 1


def test_files_of_an_experiment_lie_beside_the_database(uri: str) -> None:
    store = locate(uri)
    client = connect(store)
    experiment = client.get_experiment(experiment_id(client, store, "a b/c"))
    assert store.artifacts is not None
    assert experiment.artifact_location == (store.artifacts / "a-b-c").as_uri()


@pytest.mark.slow
def test_a_database_that_many_open_at_once_is_created_once(tmp_path: Path) -> None:
    program = (
        "import sys; from lit_eve.tracking.store import *; "
        "store = locate(sys.argv[1]); client = connect(store); "
        "print(experiment_id(client, store, 'digits'))"
    )
    command = [sys.executable, "-c", program, f"sqlite:///{tmp_path}/mlflow.db"]
    environment = dict(os.environ) | {"OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    said = [process.communicate()[0].strip() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert len(set(said)) == 1
