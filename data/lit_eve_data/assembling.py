"""Making batches of tasks, in this process or in workers, in the order of the tasks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.utils.data import DataLoader, Dataset

from lit_eve_data.batches import PackedBatch
from lit_eve_data.lengths import SampleEncoder
from lit_eve_data.packing import Pack
from lit_eve_data.reading import RecordView
from lit_eve_data.records import BadSampleError
from lit_eve_data.rows import Item, collate

_HANG = 300  # seconds without a batch before a worker counts as hung


@dataclass(frozen=True)
class Share:
    """Which part of every step this process works on, and in how many pieces."""

    rank: int = 0
    world: int = 1
    micro_batches: int = 1

    def rows(self, rows: Sequence[Pack], micro: int) -> Sequence[Pack]:
        """The rows of one micro-batch: every rank gets as many, give or take one."""
        return rows[micro * self.world + self.rank :: self.micro_batches * self.world]


ALONE = Share()
"""One process that takes a step at once."""


@dataclass(frozen=True)
class Task:
    """One batch to be made."""

    rows: Sequence[Pack]
    labels_share: float


@dataclass(frozen=True)
class Made:
    """A batch, and the samples that are missing in it."""

    batch: PackedBatch
    failed: list[tuple[str, str]]
    """(reason, message) of each."""


@dataclass(frozen=True)
class Assembler:
    """Makes batches of tasks; what a worker process holds."""

    views: Sequence[RecordView]
    encoder: SampleEncoder
    tokens_per_row: int

    def __call__(self, task: Task) -> Made:
        """Read, encode and collate; a sample that fails leaves its place in the row empty."""
        failed: list[tuple[str, str]] = []
        rows: list[list[Item]] = []
        for pack in task.rows:
            rows.append([])
            for source, index in pack:
                try:
                    rows[-1].append(self.encoder.item(self.views[source], index))
                except BadSampleError as error:
                    failed.append((error.reason, str(error)))
        batch = collate(
            rows,
            self.tokens_per_row,
            self.encoder.text.pad_id,
            self.encoder.cutter,
            task.labels_share,
            len(failed),
        )
        return Made(batch, failed)


def make_all(assemble: Assembler, tasks: Iterable[Task], workers: int) -> Iterator[Made]:
    """The batches of `tasks`, made ahead by worker processes if there are any."""
    if workers == 0:
        return map(assemble, tasks)
    return iter(
        DataLoader(
            _Assembled(assemble),
            sampler=_Once(tasks),
            batch_size=None,
            num_workers=workers,
            timeout=_HANG,
            generator=torch.Generator(),  # else every start would move the global random state
        )
    )


class _Assembled(Dataset[Made]):
    """The assembler as torch wants it: the index is the task."""

    def __init__(self, assemble: Assembler) -> None:
        self.assemble = assemble

    def __getitem__(self, task: Task) -> Made:
        return self.assemble(task)


class _Once:
    """An iterator as torch's sampler: DataLoader asks for it once per epoch."""

    def __init__(self, tasks: Iterable[Task]) -> None:
        self.tasks = tasks

    def __iter__(self) -> Iterator[Task]:
        return iter(self.tasks)
