"""Making batches of tasks, in this process or in workers, in the order of the tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

TaskT = TypeVar("TaskT")
BatchT = TypeVar("BatchT")
ItemT = TypeVar("ItemT")

_HANG = 300  # seconds without a batch before a worker counts as hung


@dataclass(frozen=True)
class Share:
    """Which part of every step this process works on, and in how many pieces."""

    rank: int = 0
    world: int = 1
    micro_batches: int = 1

    @property
    def pieces(self) -> int:
        """Into how many pieces a step is cut, over all processes."""
        return self.world * self.micro_batches

    def of(self, step: Sequence[ItemT]) -> list[Sequence[ItemT]]:
        """This process's micro-batches of a step; pieces differ by one item at most.

        What a process takes stands together in the step, and so does what a machine takes, as its
        processes are neighbours: see the lanes of `PackingPlan`.
        """
        mine = _part(step, self.rank, self.world)
        return [_part(mine, micro, self.micro_batches) for micro in range(self.micro_batches)]


def _part(items: Sequence[ItemT], number: int, parts: int) -> Sequence[ItemT]:
    """One of so many parts, as equal as can be."""
    return items[len(items) * number // parts : len(items) * (number + 1) // parts]


ALONE = Share()
"""One process that takes a step at once."""


@dataclass(frozen=True)
class Made(Generic[BatchT]):
    """A batch, and the samples that are missing in it."""

    batch: BatchT
    num_samples: int
    """Samples the batch was to have, failed ones included."""
    failed: list[tuple[str, str]]
    """(reason, message) of each sample that could not be used."""


def make_all(
    make: Callable[[TaskT], Made[BatchT]], tasks: Iterable[TaskT], workers: int
) -> Iterator[Made[BatchT]]:
    """The batches of `tasks`, made ahead by worker processes if there are any."""
    if workers == 0:
        return map(make, tasks)
    return iter(
        DataLoader(
            _Indexed(make),
            sampler=_Once(tasks),
            batch_size=None,
            num_workers=workers,
            timeout=_HANG,
            generator=torch.Generator(),  # else every start would move the global random state
        )
    )


class _Indexed(Dataset[Made[BatchT]], Generic[TaskT, BatchT]):
    """`make` as torch wants it: the index is the task."""

    def __init__(self, make: Callable[[TaskT], Made[BatchT]]) -> None:
        self.make = make

    def __getitem__(self, task: TaskT) -> Made[BatchT]:
        return self.make(task)


class _Once(Generic[TaskT]):
    """An iterator as torch's sampler: DataLoader asks for it once per epoch."""

    def __init__(self, tasks: Iterable[TaskT]) -> None:
        self.tasks = tasks

    def __iter__(self) -> Iterator[TaskT]:
        return iter(self.tasks)
