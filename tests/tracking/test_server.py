from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.request import urlopen

import pytest

from lit_eve.tracking import server
from lit_eve.tracking.liveness import created_at
from lit_eve.tracking.server import ServerError, running
from lit_eve.tracking.shipper import SyncError, sync
from lit_eve.tracking.spool import Spool
from lit_eve.tracking.store import StoreError, locate
from lit_eve.tracking.ui import home_link, link_of, run_link, serve, stage_link
from tests.files import tracking_processes

if TYPE_CHECKING:
    Points = Callable[[str, str], list[tuple[int, float]]]


def test_links_open_training_runs_not_chat_traces() -> None:
    url = "http://127.0.0.1:5000"
    links = [home_link(url), stage_link(url, "1", "learn"), run_link(url, "1", "abc", "artifacts")]
    assert all("workflowType=machine_learning" in link for link in links)
    assert links[1].endswith("viewStateShareKey=lit-eve-stage-learn&compareRunsMode=CHART")
    assert links[2].startswith(f"{url}/#/experiments/1/runs/abc/artifacts?")


def test_a_run_directory_knows_its_link_once_it_was_shipped(run_directory: Path, uri: str) -> None:
    assert link_of(run_directory, locate(uri), "http://here") is None
    synced = sync(run_directory, uri)
    link = link_of(run_directory, locate(uri), "http://here")
    assert link is not None
    assert synced.run_id in link


def test_paths_of_a_store_do_not_depend_on_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = locate("sqlite:///mlflow.db", tmp_path)
    monkeypatch.chdir("/")
    assert store.database == tmp_path / "mlflow.db"
    assert store.artifacts == tmp_path / "mlartifacts"
    assert locate("sqlite:////srv/mlflow.db", tmp_path).database == Path("/srv/mlflow.db")
    assert locate("http://tracking:5000/").uri == "http://tracking:5000"


@pytest.mark.parametrize("uri", ["file:///mlruns", "mlruns", "sqlite://", "sqlite:///:memory:"])
def test_an_address_that_cannot_be_a_store_says_what_can(uri: str) -> None:
    with pytest.raises(StoreError, match=r"Write sqlite:///mlflow\.db"):
        locate(uri)


def test_a_stores_name_does_not_hold_its_password() -> None:
    store = locate("postgresql+psycopg2://me:hunter2@db/mlflow")
    assert store.shown == "postgresql+psycopg2://***@db/mlflow"
    assert store.key == locate("postgresql+psycopg2://me:other@db/mlflow").key


def test_a_taken_port_is_passed_over() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        assert server._free_port(port) != port


def test_no_free_port_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "PORTS_TO_TRY", 0)
    with pytest.raises(ServerError, match="give another --port"):
        server._free_port(5000)


def test_a_server_that_does_not_start_shows_its_last_words(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "HOST", "no host")
    monkeypatch.setattr(server, "_free_port", lambda port: port)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(ServerError, match="did not start"), running(locate(uri)):
        pass


def test_a_server_elsewhere_that_does_not_answer_is_an_error() -> None:
    with (
        pytest.raises(ServerError, match=r"http://\*\*\*@127.0.0.1:9 does not answer"),
        running(locate("http://me:hunter2@127.0.0.1:9")),
    ):
        pass


def test_a_server_that_died_is_not_found(uri: str) -> None:
    store = locate(uri)
    record = Path(f"{store.database}.server.json")
    record.write_text(json.dumps({"url": "http://127.0.0.1:9", "pid": os.getpid(), "created": 0}))
    assert server._recorded(store) is None
    created = created_at(os.getpid())
    record.write_text(
        json.dumps({"url": "http://127.0.0.1:9", "pid": os.getpid(), "created": created})
    )
    assert server._recorded(store) is None  # alive, but no longer a server


@pytest.mark.slow
def test_a_server_is_started_found_shipped_to_and_ended(
    run_directory: Path, uri: str, points: Points
) -> None:
    lines: list[str] = []
    stop = threading.Event()
    sync(run_directory, uri)
    serving = threading.Thread(
        target=serve, args=(uri, 5480, False), kwargs={"say": lines.append, "stop": stop}
    )
    serving.start()
    while not any("Ctrl-C" in line for line in lines):
        assert serving.is_alive(), lines
        time.sleep(0.1)
    with running(locate(uri)) as found:
        assert found.found
        # The same run through the server: everything is there already, so nothing doubles.
        Spool(run_directory / "learn" / "tracking").metrics({"train/loss": 0.0}, 10)
        sync(run_directory, found.url)
        assert points("learn", "train/loss")[-1] == (10, 0.0)
        assert len(points("learn", "train/loss")) == 11
        [experiment] = [line for line in lines if "digits" in line]
        assert f"{found.url}/#/experiments/" in experiment
        assert "viewStateShareKey=lit-eve-runs" in experiment
        with urlopen(found.url, timeout=10) as page:
            assert b"MLflow" in page.read()
    stop.set()
    serving.join(20)
    assert not serving.is_alive()
    assert not tracking_processes()
    with pytest.raises(SyncError, match="Sync again when the store is reachable"):
        sync(run_directory, found.url)
