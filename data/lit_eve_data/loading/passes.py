"""One pass over held-out samples: every sample once, in the same packed batches every time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from lit_eve_data.batches import PackedBatch, StepShare
from lit_eve_data.disk.reading import RecordView
from lit_eve_data.loading.assembling import Assembler, RowsTask
from lit_eve_data.loading.working import ALONE, Share, make_all
from lit_eve_data.packing.fitting import best_fit_decreasing
from lit_eve_data.packing.lengths import SampleEncoder
from lit_eve_data.packing.orders import WINDOW
from lit_eve_data.packing.plan import Pack, SourceLengths


@dataclass
class PackedPass:
    """Batches for validation; starts over at every `iter`.

    The share is that of the whole pass: losses summed over a batch and divided by it average,
    over batches and ranks, to the mean over all supervised tokens.

    Args:
        view: the samples.
        lengths: theirs, see `SampleEncoder.lengths`.
        encoder: turns samples into items.
        tokens_per_row: slots of a row.
        rows_per_batch: most rows of a batch.
        limit: use only the first samples; None uses all.
        share: this process's part; `micro_batches` is not used.
        workers: processes that read ahead; 0 reads in this one.

    Raises:
        ValueError: if no sample fits a row, or there are fewer rows than processes.
    """

    view: RecordView
    lengths: SourceLengths
    encoder: SampleEncoder
    tokens_per_row: int
    rows_per_batch: int
    limit: int | None = None
    share: Share = ALONE
    workers: int = 0
    over_long: int = field(init=False)
    """Samples longer than a row, left out."""

    def __post_init__(self) -> None:
        tokens = self.lengths.tokens[: self.limit]
        usable = np.flatnonzero(tokens <= self.tokens_per_row)
        self.over_long = len(tokens) - len(usable)
        packs: list[Pack] = []
        for start in range(0, len(usable), WINDOW):
            window = usable[start : start + WINDOW]
            for row in best_fit_decreasing(tokens[window], self.tokens_per_row):
                packs.append([(0, int(window[place])) for place in row])
        if len(packs) < self.share.world:
            raise ValueError(
                f"{self.lengths.name}: {len(usable)} samples fit rows of {self.tokens_per_row} "
                f"tokens and fill {len(packs)} rows, too few for {self.share.world} processes. "
                + ("Lower tokens_per_row" if packs else "Raise tokens_per_row")
                + ", or hold out more samples."
            )
        self._num_batches = -(-len(packs) // (self.rows_per_batch * self.share.world))
        self._num_batches = min(self._num_batches, len(packs) // self.share.world)
        pieces = self._num_batches * self.share.world
        supervised = int(self.lengths.supervised[usable].sum())
        share = StepShare.of(supervised, int(self.lengths.images[usable].sum()), pieces)
        self._tasks = [
            RowsTask(packs[piece::pieces], share)
            for piece in range(self.share.rank, pieces, self.share.world)
        ]

    def __len__(self) -> int:
        return self._num_batches

    def __iter__(self) -> Iterator[PackedBatch]:
        assemble = Assembler([self.view], self.encoder, self.tokens_per_row)
        return (made.batch for made in make_all(assemble, self._tasks, self.workers))
