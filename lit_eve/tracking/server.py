"""A local MLflow server on the right store: found if one runs already, started otherwise."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.request import Request, urlopen

from lit_eve.tracking.liveness import created_at, process_alive, write_atomically
from lit_eve.tracking.store import QUIET, Store, connect

HOST = "127.0.0.1"
START_SECONDS = 120.0
PORTS_TO_TRY = 20
PR_SET_PDEATHSIG = 1


class ServerError(RuntimeError):
    """The server could not be started, or the one that should be there does not answer."""


@dataclass(frozen=True)
class Server:
    """A server that answers; `found` if somebody else started it."""

    url: str
    found: bool


@contextmanager
def running(store: Store, port: int = 5000) -> Iterator[Server]:
    """A server of the store while the block runs.

    A server that was started for the same database before is used again and left alone; the one
    that is started here ends with the block. If the port is taken, the next free one is used.

    Args:
        store: what to serve; for the address of a server, that server.
        port: the first port to try.

    Raises:
        ServerError: if nothing answers in the end, with the server's last words.
    """
    if store.served:
        if not healthy(store.uri, timeout=10.0):
            raise ServerError(
                f"{store.shown} does not answer: start that server, or check its URI."
            )
        yield Server(store.uri, found=True)
        return
    url = _recorded(store)
    if url is not None:
        yield Server(url, found=True)
        return
    if store.database is not None and not store.database.exists():
        connect(store)  # created once, whoever else starts at the same time
    process, url, log = _start(store, port)
    try:
        _wait(process, url, log)
        _record(store, url, process.pid)
        yield Server(url, found=False)
    finally:
        _stop(process)
        if (record := _record_file(store)) is not None:
            record.unlink(missing_ok=True)


def healthy(url: str, timeout: float = 2.0) -> bool:
    """Whether an MLflow server answers there."""
    try:
        with urlopen(f"{url}/health", timeout=timeout) as answer:
            return bool(answer.read().strip() == b"OK")
    except (HTTPException, OSError, ValueError):  # URLError is an OSError
        return False


@dataclass(frozen=True)
class Experiment:
    """An experiment of a server, with the tags that say which saved views it has."""

    id: str
    name: str
    tags: tuple[str, ...]


def experiments(url: str) -> list[Experiment]:
    """The server's experiments, the one changed last first; without MLflow's empty `Default`."""
    body = json.dumps({"max_results": 1000, "order_by": ["last_update_time DESC"]}).encode()
    headers = {"Content-Type": "application/json"}
    request = Request(f"{url}/api/2.0/mlflow/experiments/search", body, headers)
    with urlopen(request, timeout=10.0) as answer:
        found = json.loads(answer.read()).get("experiments", [])
    return [
        Experiment(
            entry["experiment_id"],
            entry["name"],
            tuple(tag["key"] for tag in entry.get("tags", [])),
        )
        for entry in found
        if entry["name"] != "Default"
    ]


def _start(store: Store, port: int) -> tuple[subprocess.Popen[bytes], str, Path]:
    port = _free_port(port)
    folder = store.artifacts.parent if store.artifacts else Path.cwd()
    log = folder / "mlflow-server.log"
    command = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port)]
    command += ["--workers", "1", "--artifacts-destination", str(store.artifacts)]
    environment = QUIET | dict(os.environ) | {"MLFLOW_BACKEND_STORE_URI": store.uri}
    with log.open("wb") as out:
        process = subprocess.Popen(
            command,
            env=environment,
            cwd=folder,
            stdout=out,
            stderr=out,
            start_new_session=True,
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,
        )
    return process, f"http://{HOST}:{port}", log


def _end_with_parent() -> None:
    """Ask Linux to end this process when the one that started it is killed."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not healthy(url):
        if process.poll() is not None or time.monotonic() > deadline:
            words = log.read_text(errors="replace").splitlines()[-15:]
            raise ServerError(
                f"the MLflow server did not start. Its last words, from {log}:\n" + "\n".join(words)
            )
        time.sleep(0.2)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the server with its workers."""
    for word in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, word)
        with suppress(subprocess.TimeoutExpired):
            process.wait(10.0)
            return


def _free_port(first: int) -> int:
    for port in range(first, first + PORTS_TO_TRY):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(OSError):
                probe.bind((HOST, port))
                return port
    raise ServerError(
        f"the ports {first} to {first + PORTS_TO_TRY - 1} are all taken: give another --port."
    )


def _record_file(store: Store) -> Path | None:
    return None if store.database is None else Path(f"{store.database}.server.json")


def _record(store: Store, url: str, pid: int) -> None:
    if (file := _record_file(store)) is not None:
        write_atomically(file, json.dumps({"url": url, "pid": pid, "created": created_at(pid)}))


def _recorded(store: Store) -> str | None:
    """Where the store's server listens, if it was started before and still answers."""
    if (file := _record_file(store)) is None:
        return None
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        alive = process_alive(record["pid"], record["created"]) and healthy(record["url"])
    except (OSError, ValueError, KeyError):
        return None
    return str(record["url"]) if alive else None
