"""Which samples go into which row of which step: a pure function of lengths, weights and a seed.

Draws come in windows. A window has a few lanes, each with chunks of its own; the samples of a lane
are packed best-fit-decreasing into rows, the rows are put in random order, and a step takes the
next rows of every lane, as many of each. What is left of a lane comes first in its next window. As
a process works on rows that stand together, its machine reads only the chunks of its lanes, however
many machines there are: the plan does not depend on that. Nothing here reads a file or knows of
ranks and workers, so every process computes the same plan, and a cursor of a few numbers is enough
to go on anywhere.

Random numbers are NumPy's `RandomState`, whose streams are frozen for all versions.

Shapes: L lanes, N samples of a window in a lane, W windows planned together.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import cycle, islice
from typing import Any

import numpy as np

from lit_eve_data.batches import StepShare
from lit_eve_data.packing.fitting import best_fit, by_row
from lit_eve_data.packing.orders import WINDOW, EpochOrder, Integers, Runs, random_numbers

Pack = list[tuple[int, int]]
"""One row: (source number, index of the sample in the source)."""
Lanes = list[list[Pack]]
"""The rows of each lane."""
_SMALLEST_WINDOW = 64
"""A dataset smaller than a window is drawn more than once in it, and samples of one length, so also
the copies of one sample, land in one row: windows are as small as that needs, down to this."""
_MOST_LANES = 8
_LANE = 4 * WINDOW
"""Samples of every dataset a lane needs for itself: a window is a small part of its epoch."""
_TOGETHER = 64
"""Windows planned together at most: two are hardly more work than one."""
_VERSION = 2
"""Of the order: a position of another one means nothing."""
_DRAW, _ROWS, _EPOCH, _SHARES = 1, 2, 3, 4  # separate streams of random numbers


@dataclass(frozen=True)
class SourceLengths:
    """What the plan has to know of one dataset."""

    name: str
    weight: float
    tokens: Integers
    """(N,) slots each sample takes."""
    supervised: Integers
    """(N,) supervised tokens of each sample."""
    images: Integers
    """(N,) images of each sample."""
    chunk: Integers
    """(N,) the chunk each sample lies in, non-decreasing: chunks are read one after another."""


@dataclass(frozen=True)
class Cursor:
    """Where in the plan one stands: after `step` steps."""

    step: int = 0
    window: int = 0
    row: int = 0
    """Rows of each lane, carried ones included, that are used up."""
    carried: tuple[int, ...] = ()
    """Rows of earlier windows that stand before this window's own, of each lane."""
    drawn: tuple[int, ...] = ()
    """Samples each lane took from each source before this window."""

    def state(self) -> dict[str, Any]:
        """As plain JSON."""
        return {**self.__dict__, "carried": list(self.carried), "drawn": list(self.drawn)}


@dataclass
class PackingPlan:
    """The steps of a mixture of datasets.

    Args:
        sources: the datasets; samples longer than a row are left out of the plan and counted.
        tokens_per_row: slots of a row.
        batch: samples a step has on average; decides the fixed number of rows.
        seed: of everything that is drawn.

    Raises:
        ValueError: if there is nothing to draw from.
    """

    sources: Sequence[SourceLengths]
    tokens_per_row: int
    batch: int
    seed: int
    over_long: dict[str, int] = field(init=False)
    """Samples of each source that are longer than a row and therefore never used."""
    rows_per_step: int = field(init=False)
    lanes: int = field(init=False)
    """Equal parts of every step that read chunks of their own."""
    samples_per_row: float = field(init=False)
    """On average, measured on the first window."""
    padding: float = field(init=False)
    """Share of slots that stay empty, measured on the first window."""

    def __post_init__(self) -> None:
        self._usable = [
            np.flatnonzero(s.tokens <= self.tokens_per_row).astype(np.int32) for s in self.sources
        ]
        self.over_long = {
            source.name: len(source.tokens) - len(usable)
            for source, usable in zip(self.sources, self._usable, strict=True)
        }
        self._check()
        weights = np.array([source.weight for source in self.sources], float)
        self._bounds = np.cumsum(weights / weights.sum())
        share = np.diff(self._bounds, prepend=0.0)
        once = min(len(usable) / part for usable, part in zip(self._usable, share, strict=True))
        self._window_size = int(min(WINDOW, max(_SMALLEST_WINDOW, once)))
        self._deal(1)
        (packs,) = self._window(0, self.start.drawn)
        used = sum(self._tokens(pack) for pack in packs)
        self.samples_per_row = self._window_size / len(packs)
        self.padding = 1 - used / (len(packs) * self.tokens_per_row)
        self.rows_per_step = max(1, round(self.batch / self.samples_per_row))
        lanes = _MOST_LANES
        while self.rows_per_step % lanes or (lanes * _LANE > once and lanes > 1):
            lanes //= 2
        if lanes > 1:
            self._deal(lanes)

    def _deal(self, lanes: int) -> None:
        """Give every lane its own chunks."""
        self.lanes, self._orders = lanes, []
        self._known: dict[tuple[int, tuple[int, ...]], Lanes] = {}
        for source, usable in zip(self.sources, self._usable, strict=True):
            name = zlib.crc32(source.name.encode())
            runs = Runs.of(
                source.chunk if len(usable) == len(source.chunk) else source.chunk[usable]
            )
            shares = runs.dealt(lanes, random_numbers(self.seed, _SHARES, name))
            self._orders.append(
                [EpochOrder(r, (self.seed, _EPOCH, name, lane)) for lane, r in enumerate(shares)]
            )

    def _check(self) -> None:
        if not self.sources or any(source.weight <= 0 for source in self.sources):
            raise ValueError("a mixture needs datasets, each with a weight above zero.")
        for source, usable in zip(self.sources, self._usable, strict=True):
            if len(usable) == 0:
                if len(source.tokens) == 0:
                    raise ValueError(f"{source.name} has no samples: there is nothing to draw.")
                raise ValueError(
                    f"{source.name} has no sample that fits a row of {self.tokens_per_row} tokens "
                    f"(the shortest has {source.tokens.min()}): raise tokens_per_row or make "
                    "images smaller."
                )

    @property
    def start(self) -> Cursor:
        """Before the first step."""
        return Cursor(carried=(0,) * self.lanes, drawn=(0,) * len(self.sources))

    @property
    def samples_per_step(self) -> float:
        """On average."""
        return self.rows_per_step * self.samples_per_row

    @property
    def tokens_per_step(self) -> int:
        """Slots of a step, padding included."""
        return self.rows_per_step * self.tokens_per_row

    @property
    def samples_per_epoch(self) -> int:
        """Samples of all datasets that fit a row."""
        return sum(len(usable) for usable in self._usable)

    def steps(self, cursor: Cursor) -> Iterator[tuple[list[Pack], Cursor]]:
        """The rows of every step from `cursor` on, for ever, each with the cursor after it.

        Rows of one lane stand together.
        """
        rest, each = self._carried(cursor), self.rows_per_step // self.lanes
        for own, drawn in self._windows(cursor.window, cursor.drawn):
            lanes = [before + rows for before, rows in zip(rest, own, strict=True)]
            shortest = min(map(len, lanes))
            while cursor.row + each <= shortest:
                rows = [row for lane in lanes for row in lane[cursor.row : cursor.row + each]]
                cursor = replace(cursor, step=cursor.step + 1, row=cursor.row + each)
                yield rows, cursor
            rest = [lane[cursor.row :] for lane in lanes]
            cursor = Cursor(cursor.step, cursor.window + 1, 0, tuple(map(len, rest)), drawn)

    def cursor(self, state: Mapping[str, Any]) -> Cursor:
        """The cursor whose `state` that is."""
        lists = {name: tuple(state[name]) for name in ("carried", "drawn")}
        return Cursor(**{**state, **lists})

    def share(self, rows: Sequence[Pack], pieces: int) -> StepShare:
        """What each of so many pieces of a step of the given rows divides its sums by."""
        samples = [(self.sources[source], index) for pack in rows for source, index in pack]
        supervised = sum(int(source.supervised[index]) for source, index in samples)
        images = sum(int(source.images[index]) for source, index in samples)
        return StepShare.of(supervised, images, pieces)

    def heaviest(self, count: int) -> list[Pack]:
        """So many rows, those first that hold most pictures, over again where there are fewer.

        Out of the first window; what nobody learns to say is pictures and questions about them.
        """
        packs = [pack for lane in self._window(0, self.start.drawn) for pack in lane]
        packs.sort(key=self._unsupervised, reverse=True)
        return list(islice(cycle(packs), count))

    def shares(self, cursor: Cursor) -> dict[str, tuple[float, float]]:
        """Share of the samples up to `cursor` that each source gave, and the share asked for."""
        counts = self.lanes * np.array(cursor.drawn)
        own = self._window(cursor.window, cursor.drawn)
        for carried, rows in zip(self._carried(cursor), own, strict=True):
            counts += self._given((carried + rows)[: cursor.row]) - self._given(carried)
        asked = np.diff(self._bounds, prepend=0.0)
        given = counts / max(1, int(counts.sum()))
        names = (source.name for source in self.sources)
        return dict(zip(names, zip(given.tolist(), asked.tolist(), strict=True), strict=True))

    def _given(self, packs: Sequence[Pack]) -> Integers:
        """Samples of each source in some rows."""
        sources = [source for pack in packs for source, _ in pack]
        return np.bincount(np.array(sources, np.int64), minlength=len(self.sources))

    def fingerprint(self) -> str:
        """Changes with everything the plan depends on."""
        digest = zlib.crc32(f"{_VERSION} {self.tokens_per_row} {self.batch} {self.seed}".encode())
        for source in self.sources:
            digest = zlib.crc32(f"{source.name} {source.weight}".encode(), digest)
            for array in (source.tokens, source.chunk):
                digest = zlib.crc32(np.ascontiguousarray(array, np.int64).data, digest)
        return f"{digest:08x}"

    def _tokens(self, pack: Pack) -> int:
        return sum(int(self.sources[source].tokens[index]) for source, index in pack)

    def _unsupervised(self, pack: Pack) -> int:
        spoken = sum(int(self.sources[source].supervised[index]) for source, index in pack)
        return self._tokens(pack) - spoken

    def _carried(self, cursor: Cursor) -> Lanes:
        """The rows earlier windows left over, of each lane."""
        lanes: Lanes = [[] for _ in range(self.lanes)]
        window, drawn = cursor.window, cursor.drawn
        while any(len(lane) < many for lane, many in zip(lanes, cursor.carried, strict=True)):
            window -= 1
            drawn = tuple(a - b for a, b in zip(drawn, self._counts(window), strict=True))
            own = self._window(window, drawn)
            lanes = [rows + lane for rows, lane in zip(own, lanes, strict=True)]
        return [lane[len(lane) - n :] for lane, n in zip(lanes, cursor.carried, strict=True)]

    def _draws(self, window: int) -> Integers:
        """The source of every sample of a window, (N,), the same for all lanes."""
        if len(self.sources) == 1:
            return np.zeros(self._window_size, np.int64)
        uniform = random_numbers(self.seed, _DRAW, window).random_sample(self._window_size)
        return np.minimum(np.searchsorted(self._bounds, uniform, "right"), len(self.sources) - 1)

    def _counts(self, window: int) -> list[int]:
        counts = np.bincount(self._draws(window), minlength=len(self.sources))
        return [int(count) for count in counts]

    def _window(self, window: int, drawn: Sequence[int]) -> Lanes:
        """The rows of one window, of each lane; the last two are remembered."""
        key = window, tuple(drawn)
        if key not in self._known:
            while len(self._known) > 1:
                del self._known[next(iter(self._known))]
            self._known[key] = next(self._windows(window, drawn))[0]
        return self._known[key]

    def _windows(
        self, window: int, drawn: Sequence[int]
    ) -> Iterator[tuple[Lanes, tuple[int, ...]]]:
        """The rows of the windows from one on, for ever, with what is drawn after each."""
        together = 1  # the first comes soon; then more and more of them are planned at once
        while True:
            draws, indices, after = [], [], []
            for number in range(window, window + together):
                draws.append(self._draws(number))
                indices.append(self._indices(draws[-1], drawn))
                counts = np.bincount(draws[-1], minlength=len(self.sources)).tolist()
                drawn = tuple(a + b for a, b in zip(drawn, counts, strict=True))
                after.append(drawn)
            fits = self._fits(draws, indices)
            for number, taken in enumerate(after):
                yield self._rows(window + number, draws[number], indices[number], fits), taken
            window, together = window + together, min(2 * together, _TOGETHER // self.lanes)

    def _indices(self, draws: Integers, drawn: Sequence[int]) -> Integers:
        """The samples of a window in their sources, (L, N)."""
        indices = np.empty((self.lanes, len(draws)), np.int64)
        for number, orders in enumerate(self._orders):
            mine = draws == number
            for lane, order in enumerate(orders):
                places = order.take(drawn[number], int(mine.sum()))
                indices[lane, mine] = self._usable[number][places]
        return indices

    def _fits(
        self, draws: Sequence[Integers], indices: Sequence[Integers]
    ) -> Iterator[tuple[Integers, Integers]]:
        """The samples of each lane of each window longest first, and the row of each of them."""
        lengths = np.empty((len(draws), self.lanes, self._window_size), np.int64)
        for window, (drawn, chosen) in enumerate(zip(draws, indices, strict=True)):
            for number, source in enumerate(self.sources):
                mine = drawn == number
                lengths[window][:, mine] = source.tokens[chosen[:, mine]]
        orders, rows = best_fit(lengths.reshape(-1, self._window_size), self.tokens_per_row)
        return zip(orders, rows, strict=True)

    def _rows(
        self,
        window: int,
        draws: Integers,
        indices: Integers,
        fits: Iterator[tuple[Integers, Integers]],
    ) -> Lanes:
        """The rows of each lane of a window in random order."""
        lanes: Lanes = []
        for lane, (order, rows) in zip(range(self.lanes), fits, strict=False):
            places, borders = by_row(rows)
            order = order[places]
            samples = list(zip(draws[order].tolist(), indices[lane][order].tolist(), strict=True))
            random = random_numbers(self.seed, _ROWS, window, lane)
            shuffled = random.permutation(len(borders) - 1).tolist()
            lanes.append([samples[borders[n] : borders[n + 1]] for n in shuffled])
        return lanes
