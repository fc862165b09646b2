from __future__ import annotations

import os
import signal
import time
from itertools import count

import psutil
import pytest

from lit_eve_data.preparing.pool import WorkerPool


def square(number: int) -> tuple[int, int]:
    """Even numbers take longer, so that results come back in another order."""
    time.sleep(0.02 * (number % 2 == 0))
    return number, number**2


def large(size: int) -> bytes:
    """More than a pipe holds."""
    return bytes(size)


def die(number: int) -> bytes:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return bytes(1_000_000)


def workers() -> list[psutil.Process]:
    """Processes of a pool: multiprocessing keeps one of its own besides."""
    children = psutil.Process().children()
    return [child for child in children if "spawn_main" in " ".join(child.cmdline())]


def test_results_come_in_the_order_of_the_tasks() -> None:
    with WorkerPool(square, iter(range(40)), 2) as pool:
        assert list(pool) == [(number, number**2) for number in range(40)]
    assert workers() == []


def test_large_tasks_and_results_do_not_block_each_other() -> None:
    tasks = [bytes(300_000) for _ in range(12)]
    with WorkerPool(len, iter(tasks), 1) as pool:
        assert list(pool) == [300_000] * 12
    with WorkerPool(large, iter([2_000_000] * 12), 2) as pool:
        assert [len(result) for result in pool] == [2_000_000] * 12


def test_tasks_are_taken_only_a_little_ahead() -> None:
    taken = []

    def endless() -> object:
        for number in count():
            taken.append(number)
            yield number

    with WorkerPool(square, endless(), 2) as pool:  # type: ignore[arg-type]
        results = iter(pool)
        for _ in range(20):
            next(results)
        assert len(taken) < 20 + 2 * 8


def test_a_worker_killed_in_the_middle_of_a_large_result_is_noticed() -> None:
    pool = WorkerPool(die, iter(range(10)), 2)
    with pool, pytest.raises(RuntimeError, match=r"exit status -9.*memory ran out"):
        list(pool)
    assert workers() == []


def test_workers_end_with_the_pool() -> None:
    with WorkerPool(square, count(), 2) as pool:
        next(iter(pool))
        assert len(workers()) == 2
    assert workers() == []
