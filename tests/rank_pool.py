"""Processes that train together over gloo, kept for many tests: importing torch costs seconds."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext
from multiprocessing.forkserver import ensure_running
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

_T = TypeVar("_T")


class RankPool:
    """Runs one function on every rank and returns all results.

    After a failure or a timeout the processes are replaced: a collective that one rank has left
    cannot be repaired.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._ranks: list[tuple[BaseProcess, Connection]] = []

    def run(self, function: Callable[..., _T], *arguments: Any, timeout: float = 120) -> list[_T]:
        """Call `function(*arguments)` on every rank; it must be importable.

        Raises:
            AssertionError: with the traceback of every rank that failed, or on a timeout.
        """
        if any(not process.is_alive() for process, _ in self._ranks):
            self.close()
        if not self._ranks:
            self._start()
        try:
            for _, connection in self._ranks:
                connection.send((function, arguments))
            answers = [self._answer(rank, timeout) for rank in range(self.size)]
        except BaseException:
            self.close()  # an answer that nobody took would be taken for the next one
            raise
        failures = [text for good, text in answers if not good]
        if failures:
            self.close()
            raise AssertionError("\n".join(failures))
        return [value for _, value in answers]

    def close(self) -> None:
        for process, connection in self._ranks:
            connection.close()
            process.kill()
            process.join()
        self._ranks = []

    def _start(self) -> None:
        context = multiprocessing.get_context("forkserver")
        _start_server(context)
        port = free_port()
        for rank in range(self.size):
            ours, theirs = context.Pipe()
            process = context.Process(
                target=_serve, args=(theirs, rank, self.size, port), daemon=True
            )
            process.start()
            theirs.close()
            self._ranks.append((process, ours))

    def _answer(self, rank: int, timeout: float) -> tuple[bool, Any]:
        process, connection = self._ranks[rank]
        wait([connection, process.sentinel], timeout)
        try:
            if connection.poll():
                answer: tuple[bool, Any] = connection.recv()
                return answer
        except EOFError:
            process.join(5)
        state = f"exit code {process.exitcode}" if process.exitcode is not None else "no answer"
        return False, f"rank {rank}: {state}"


def _start_server(context: ForkServerContext) -> None:
    """One process imports everything once; ranks, also those after a failure, are its forks."""
    context.set_forkserver_preload(["tests.rank_scenarios", "tests.rank_runs"])
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    try:
        ensure_running()
    finally:
        del os.environ["PYTHONPATH"]
        if before is not None:
            os.environ["PYTHONPATH"] = before


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def environment(rank: int, size: int, port: int) -> dict[str, str]:
    """What torchrun tells a process on one node."""
    return {
        "TORCHELASTIC_RUN_ID": "test",
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "GROUP_RANK": "0",
        "WORLD_SIZE": str(size),
        "LOCAL_WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "GLOO_SOCKET_IFNAME": "lo",
        "OMP_NUM_THREADS": "1",
    }


def _serve(connection: Connection, rank: int, size: int, port: int) -> None:
    os.environ.update(environment(rank, size, port))
    import torch

    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    while True:
        try:
            function, arguments = connection.recv()
        except EOFError:
            os._exit(0)
        try:
            connection.send((True, function(*arguments)))
        except BaseException:
            connection.send((False, f"rank {rank}:\n{traceback.format_exc()}"))
