"""Which samples go into which row of which step: a pure function of lengths, weights and a seed.

Draws come in windows. The samples of a window are packed best-fit-decreasing into rows, the rows
are put in random order, and a step takes the next `rows_per_step` of them; what is left of a window
comes first in the next. Nothing here reads a file or knows of ranks and workers, so every process
computes the same plan, and a cursor of a few numbers is enough to go on anywhere.

Source: best fit decreasing, Johnson 1973; random numbers are NumPy's `RandomState`, whose streams
are frozen for all versions.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import cycle, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lit_eve_data.batches import StepShare

Integers = NDArray[np.int64]
Pack = list[tuple[int, int]]
"""One row: (source number, index of the sample in the source)."""
WINDOW = 2_000
"""Samples packed together: enough for under 2 % of padding at eight samples a row."""
_SMALLEST_WINDOW = 64
"""A dataset smaller than a window is drawn more than once in it, and samples of one length, so also
the copies of one sample, land in one row: windows are as small as that needs, down to this."""
_DRAW, _ROWS, _EPOCH = 1, 2, 3  # separate streams of random numbers


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
    """Rows of the window, carried ones included, that are used up."""
    carried: int = 0
    """Rows of earlier windows that stand before this window's own."""
    drawn: tuple[int, ...] = ()
    """Samples taken from each source before this window."""

    def state(self) -> dict[str, Any]:
        """As plain JSON."""
        return {**self.__dict__, "drawn": list(self.drawn)}


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
    samples_per_row: float = field(init=False)
    """On average, measured on the first window."""
    padding: float = field(init=False)
    """Share of slots that stay empty, measured on the first window."""

    def __post_init__(self) -> None:
        self._usable = [np.flatnonzero(s.tokens <= self.tokens_per_row) for s in self.sources]
        self.over_long = {
            source.name: len(source.tokens) - len(usable)
            for source, usable in zip(self.sources, self._usable, strict=True)
        }
        self._check()
        weights = np.array([source.weight for source in self.sources], float)
        self._bounds = np.cumsum(weights / weights.sum())
        self._orders: list[dict[int, Integers]] = [{} for _ in self.sources]
        share = np.diff(self._bounds, prepend=0.0)
        once = min(len(usable) / part for usable, part in zip(self._usable, share, strict=True))
        self._window_size = int(min(WINDOW, max(_SMALLEST_WINDOW, once)))
        packs = self._window(0, self.start.drawn)
        used = sum(self._tokens(pack) for pack in packs)
        self.samples_per_row = self._window_size / len(packs)
        self.padding = 1 - used / (len(packs) * self.tokens_per_row)
        self.rows_per_step = max(1, round(self.batch / self.samples_per_row))

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
        return Cursor(drawn=(0,) * len(self.sources))

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
        """The rows of every step from `cursor` on, for ever, each with the cursor after it."""
        packs = self._carried(cursor) + self._window(cursor.window, cursor.drawn)
        while True:
            while cursor.row + self.rows_per_step <= len(packs):
                rows = packs[cursor.row : cursor.row + self.rows_per_step]
                cursor = replace(cursor, step=cursor.step + 1, row=cursor.row + len(rows))
                yield rows, cursor
            rest = packs[cursor.row :]
            counts = self._counts(cursor.window)
            drawn = tuple(a + b for a, b in zip(cursor.drawn, counts, strict=True))
            cursor = Cursor(cursor.step, cursor.window + 1, 0, len(rest), drawn)
            packs = rest + self._window(cursor.window, cursor.drawn)

    def cursor(self, state: Mapping[str, Any]) -> Cursor:
        """The cursor whose `state` that is."""
        return Cursor(**{**state, "drawn": tuple(state["drawn"])})

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
        packs = self._window(0, self.start.drawn)
        packs.sort(key=self._unsupervised, reverse=True)
        return list(islice(cycle(packs), count))

    def shares(self, cursor: Cursor) -> dict[str, tuple[float, float]]:
        """Share of the samples up to `cursor` that each source gave, and the share asked for."""
        carried = self._carried(cursor)
        packs = carried + self._window(cursor.window, cursor.drawn)
        counts = np.array(cursor.drawn) - self._given(carried) + self._given(packs[: cursor.row])
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
        digest = zlib.crc32(f"{self.tokens_per_row} {self.batch} {self.seed}".encode())
        for source in self.sources:
            digest = zlib.crc32(f"{source.name} {source.weight}".encode(), digest)
            for array in (source.tokens, source.chunk):
                digest = zlib.crc32(np.ascontiguousarray(array, np.int64).tobytes(), digest)
        return f"{digest:08x}"

    def _tokens(self, pack: Pack) -> int:
        return sum(int(self.sources[source].tokens[index]) for source, index in pack)

    def _unsupervised(self, pack: Pack) -> int:
        spoken = sum(int(self.sources[source].supervised[index]) for source, index in pack)
        return self._tokens(pack) - spoken

    def _carried(self, cursor: Cursor) -> list[Pack]:
        """The rows earlier windows left over."""
        packs: list[Pack] = []
        window, drawn = cursor.window, cursor.drawn
        while len(packs) < cursor.carried:
            window -= 1
            counts = self._counts(window)
            drawn = tuple(a - b for a, b in zip(drawn, counts, strict=True))
            packs = self._window(window, drawn) + packs
        return packs[len(packs) - cursor.carried :]

    def _draws(self, window: int) -> Integers:
        """The source of every sample of a window."""
        uniform = random_numbers(self.seed, _DRAW, window).random_sample(self._window_size)
        return np.minimum(np.searchsorted(self._bounds, uniform, "right"), len(self.sources) - 1)

    def _counts(self, window: int) -> list[int]:
        counts = np.bincount(self._draws(window), minlength=len(self.sources))
        return [int(count) for count in counts]

    def _window(self, window: int, drawn: Sequence[int]) -> list[Pack]:
        """The rows of a window in random order."""
        draws = self._draws(window)
        indices = np.empty_like(draws)
        lengths = np.empty_like(draws)
        for number, source in enumerate(self.sources):
            mine = draws == number
            indices[mine] = self._next(number, drawn[number], int(mine.sum()))
            lengths[mine] = source.tokens[indices[mine]]
        samples = list(zip(draws.tolist(), indices.tolist(), strict=True))
        packs = best_fit_decreasing(lengths, self.tokens_per_row)
        order = random_numbers(self.seed, _ROWS, window).permutation(len(packs))
        return [[samples[place] for place in packs[number]] for number in order.tolist()]

    def _next(self, number: int, position: int, count: int) -> Integers:
        """The samples at `position` ... of a source's endless run of epochs."""
        length = len(self._usable[number])
        parts = [np.zeros(0, np.int64)]
        while count > 0:
            epoch, offset = divmod(position, length)
            part = self._order(number, epoch)[offset : offset + count]
            parts.append(part)
            position, count = position + len(part), count - len(part)
        return np.concatenate(parts)

    def _order(self, number: int, epoch: int) -> Integers:
        """One epoch of a source; the last two are remembered."""
        known = self._orders[number]
        if epoch not in known:
            for old in [e for e in known if abs(e - epoch) > 1]:
                del known[old]
            source, usable = self.sources[number], self._usable[number]
            random = random_numbers(self.seed, _EPOCH, epoch, zlib.crc32(source.name.encode()))
            known[epoch] = usable[epoch_order(source.chunk[usable], random)]
        return known[epoch]


def epoch_order(chunk: Integers, random: np.random.RandomState) -> Integers:
    """Positions 0 ... N-1 in random order, few chunks at a time.

    Chunks are put in random order and shuffled in groups of at least a window's samples, so reading
    stays local and every sample comes once.
    """
    borders = np.flatnonzero(np.diff(chunk)) + 1
    chunks = np.split(np.arange(len(chunk)), borders)
    parts, group, size = [], [], 0
    order = random.permutation(len(chunks)).tolist()
    for place, number in enumerate(order):
        group.append(chunks[number])
        size += len(chunks[number])
        if size >= WINDOW or place == len(order) - 1:
            parts.append(random.permutation(np.concatenate(group)))
            group, size = [], 0
    return np.concatenate(parts)


def best_fit_decreasing(lengths: Integers, room: int) -> list[list[int]]:
    """Rows of positions: each sample, longest first, goes where it leaves the least room.

    Args:
        lengths: (N,) tokens of each sample, none above `room`.
        room: tokens a row holds.
    """
    rows: list[list[int]] = []
    with_room: list[list[int]] = [[] for _ in range(room + 1)]  # rows by the room they have left
    present = 0  # bit r: there is a row with r slots left
    order = np.argsort(-lengths, kind="stable")
    for place, length in zip(order.tolist(), lengths[order].tolist(), strict=True):
        candidates = present >> length
        if candidates:
            space = length + (candidates & -candidates).bit_length() - 1
            row = with_room[space].pop()
            if not with_room[space]:
                present ^= 1 << space
            rows[row].append(place)
        else:
            space, row = room, len(rows)
            rows.append([place])
        left = space - length
        with_room[left].append(row)
        present |= 1 << left
    return rows


def random_numbers(*seed: int) -> np.random.RandomState:
    """A stream of random numbers of its own for every tuple of numbers."""
    return np.random.RandomState([number % 2**32 for number in seed])
