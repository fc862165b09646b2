"""The datasets of an experiment, prepared before anything else: several at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from threading import BoundedSemaphore, Lock, Thread

from rich.console import Console

from lit_eve import assemble
from lit_eve.running.progress import progress_line
from lit_eve.schema import Experiment

TOGETHER = 2
"""Datasets prepared at a time: while one starts or is verified on one core, another composes."""
Bar = Callable[[int, int], None]


def prepare_datasets(experiment: Experiment, data: Path, console: Console) -> dict[str, Path]:
    """The folders of all datasets; built-in ones are prepared under `data` first.

    Raises:
        Exception: what the first dataset that failed raised; the others end with this process, and
            are gone on with next time.
    """
    options = experiment.datasets
    with progress_line(console, f"preparing {', '.join(options)}", "samples") as bar:
        shared = SharedBar(bar)
        return _together(
            {
                name: partial(assemble.dataset, dataset, data, shared.part(name))
                for name, dataset in options.items()
            }
        )


class SharedBar:
    """One bar for work done side by side."""

    def __init__(self, bar: Bar) -> None:
        self._bar, self._lock = bar, Lock()
        self._done: dict[str, tuple[int, int]] = {}

    def part(self, name: str) -> Bar:
        """Moves the bar by the part of the work that goes by `name`."""

        def report(done: int, total: int) -> None:
            with self._lock:
                self._done[name] = done, total
                sums = [sum(column) for column in zip(*self._done.values(), strict=True)]
                self._bar(sums[0], sums[1])

        return report


def _together(works: Mapping[str, Callable[[], Path]]) -> dict[str, Path]:
    """Results by name; in threads that an interrupted program doesn't wait for."""
    ended: SimpleQueue[tuple[str, Path | BaseException]] = SimpleQueue()
    turn = BoundedSemaphore(TOGETHER)

    def work(name: str) -> None:
        with turn:
            try:
                ended.put((name, works[name]()))
            except BaseException as error:  # raised again where it is waited for
                ended.put((name, error))

    for name in works:
        Thread(target=work, args=(name,), daemon=True).start()
    found: dict[str, Path] = {}
    while len(found) < len(works):
        name, result = ended.get()
        if isinstance(result, BaseException):
            raise result
        found[name] = result
    return {name: found[name] for name in works}
