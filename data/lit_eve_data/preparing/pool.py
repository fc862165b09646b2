"""Worker processes, each on a pipe of its own, so that one that is killed is noticed at once.

`concurrent.futures` has one pipe for the results of all workers: if a worker is killed while it
writes to it, the reader waits for the rest of the message for ever (seen with Python 3.11).
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

TaskT = TypeVar("TaskT")
ResultT = TypeVar("ResultT")

_GIVEN = 2  # tasks a worker holds: one it works on, one that waits
_AHEAD = 6  # tasks per worker that may be finished and waiting for an earlier one: bounds memory


class WorkerPool(Generic[TaskT, ResultT]):
    """Applies a function to tasks in worker processes, and gives the results in order.

    Args:
        function: picklable; what it is given and gives back travels through a pipe.
        tasks: lazily taken, a few for each worker ahead of the results that are used. The first
            ones are handed out at once, before a result is asked for.
        workers: processes, at least one.
    """

    def __init__(
        self, function: Callable[[TaskT], ResultT], tasks: Iterator[TaskT], workers: int
    ) -> None:
        self._tasks = enumerate(tasks)
        self._results: dict[int, ResultT] = {}
        self._next = 0
        self._given: dict[Connection, int] = {}
        self._processes = {}
        context = get_context("spawn")
        for _ in range(workers):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs, function), daemon=True)
            process.start()
            theirs.close()  # the worker's is the only one left: the pipe ends with it
            self._given[ours] = 0
            self._processes[ours] = process
        for _ in range(_GIVEN):
            for connection in self._given:
                self._give(connection)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in self._processes.values():
            process.kill()
            process.join()

    def __iter__(self) -> Iterator[ResultT]:
        """The results in the order of the tasks.

        Raises:
            RuntimeError: if a worker ended before its time.
        """
        while self._next in self._results or any(self._given.values()):
            while self._next in self._results:
                self._next += 1
                yield self._results.pop(self._next - 1)
            self._give_to_idle()
            busy = [connection for connection, given in self._given.items() if given]
            for connection in wait(busy) if busy else ():  # waiting for nobody would never end
                self._take(connection)  # type: ignore[arg-type]  # only connections were given

    def _give_to_idle(self) -> None:
        for connection, given in self._given.items():
            if given < _GIVEN and len(self._results) < _AHEAD * len(self._given):
                self._give(connection)

    def _give(self, connection: Connection) -> None:
        for task in islice(self._tasks, 1):
            with self._noticing(connection):
                connection.send(task)
            self._given[connection] += 1

    def _take(self, connection: Connection) -> None:
        with self._noticing(connection):
            number, result = connection.recv()
        self._results[number] = result
        self._given[connection] -= 1
        if len(self._results) < _AHEAD * len(self._given):
            self._give(connection)

    @contextmanager
    def _noticing(self, connection: Connection) -> Iterator[None]:
        """Say what a broken pipe means."""
        try:
            yield
        except (EOFError, OSError) as error:
            process = self._processes[connection]
            process.join()
            raise RuntimeError(
                f"a worker process ended with exit status {process.exitcode}: it was killed, most "
                "often because memory ran out. Use fewer workers, or free memory."
            ) from error


def _work(connection: Connection, function: Callable[[Any], Any]) -> None:
    """Answer tasks until the parent is gone."""
    tasks: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()
    # Read at all times: else both sides could wait for the other to empty a full pipe.
    threading.Thread(target=_read, args=(connection, tasks), daemon=True).start()
    while True:
        number, task = tasks.get()
        connection.send((number, function(task)))


def _read(connection: Connection, tasks: queue.SimpleQueue[tuple[int, Any]]) -> None:
    while True:
        try:
            tasks.put(connection.recv())
        except (EOFError, OSError):
            os._exit(1)  # the parent ended: there is nobody to work for
