"""Endless epochs of samples in random order: a few chunks at a time, and never a whole epoch held.

An order is made of runs, samples that lie one after another in a chunk. In every epoch the runs are
put in random order and cut into groups of at least a window's samples; each group is shuffled when
it is reached, with random numbers of its own. So reading stays local, every sample comes once an
epoch, and any place can be reached without what lies before it.

Shapes: N samples, C runs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
WINDOW = 2_000
"""Samples packed together: enough for under 2 % of padding at eight samples a row."""


@dataclass(frozen=True)
class Runs:
    """Samples that lie one after another: where each run begins, and how many they are."""

    starts: Integers
    """(C,)"""
    sizes: Integers
    """(C,)"""

    @classmethod
    def of(cls, chunk: Integers) -> Runs:
        """Of samples 0 ... N-1, given the chunk each lies in, (N,), non-decreasing."""
        borders = np.flatnonzero(chunk[1:] != chunk[:-1]) + 1
        starts = np.concatenate([np.zeros(1, np.int64), borders])
        return cls(starts, np.diff(starts, append=len(chunk)))

    def dealt(self, hands: int, random: np.random.RandomState) -> list[Runs]:
        """The same samples in so many shares, equal to one sample; few runs are cut for that.

        Neighbours go to different shares, so what was appended is spread over all of them.
        """
        if hands == 1:
            return [self]
        shares: list[list[tuple[int, int]]] = [[] for _ in range(hands)]
        pairs = list(zip(self.starts.tolist(), self.sizes.tolist(), strict=True))
        for first in range(0, len(pairs), hands):
            some = pairs[first : first + hands]
            for hand, pair in zip(random.permutation(hands)[: len(some)], some, strict=True):
                shares[hand].append(pair)
        _level(shares, int(self.sizes.sum()))
        return [Runs(*np.array(share, np.int64).reshape(-1, 2).T) for share in shares]


def _level(shares: list[list[tuple[int, int]]], total: int) -> None:
    """Move samples from the ends of large shares to small ones."""
    wanted = [total // len(shares) + (n < total % len(shares)) for n in range(len(shares))]
    spare: list[tuple[int, int]] = []
    for share, most in zip(shares, wanted, strict=True):
        surplus = sum(size for _, size in share) - most
        while surplus > 0:
            start, size = share.pop()
            cut = min(size, surplus)
            spare.append((start + size - cut, cut))
            if cut < size:
                share.append((start, size - cut))
            surplus -= cut
    for share, most in zip(shares, wanted, strict=True):
        missing = most - sum(size for _, size in share)
        while missing > 0:
            start, size = spare.pop()
            used = min(size, missing)
            share.append((start, used))
            if used < size:
                spare.append((start + used, size - used))
            missing -= used


@dataclass
class EpochOrder:
    """The samples of some runs, over and over, each epoch in an order of its own.

    Args:
        runs: of the samples.
        seed: of the order.
    """

    runs: Runs
    seed: tuple[int, ...]
    length: int = field(init=False)
    """Samples of an epoch."""

    def __post_init__(self) -> None:
        self.length = int(self.runs.sizes.sum())
        self._epochs: dict[int, tuple[list[Integers], Integers]] = {}
        self._groups: dict[tuple[int, int], Integers] = {}

    def take(self, position: int, count: int) -> Integers:
        """The samples at `position` ... of the endless run of epochs, (count,)."""
        parts = [np.zeros(0, np.int64)]
        while count > 0:
            epoch, offset = divmod(position, self.length)
            _, borders = self._epoch(epoch)
            number = int(np.searchsorted(borders, offset, "right")) - 1
            inside = offset - int(borders[number])
            parts.append(self._group(epoch, number)[inside : inside + count])
            position, count = position + len(parts[-1]), count - len(parts[-1])
        return np.concatenate(parts)

    def _epoch(self, epoch: int) -> tuple[list[Integers], Integers]:
        """The runs of each group of an epoch, and where in the epoch each group begins."""
        if epoch not in self._epochs:
            _forget(self._epochs)
            order = random_numbers(*self.seed, epoch).permutation(len(self.runs.sizes))
            ends, borders, inside, done = [], [0], 0, 0
            for place, size in enumerate(self.runs.sizes[order].tolist(), 1):
                inside += size
                if inside >= WINDOW or place == len(order):
                    done, inside = done + inside, 0
                    ends.append(place)
                    borders.append(done)
            groups = np.split(order, ends[:-1])
            self._epochs[epoch] = groups, np.array(borders[:-1], np.int64)
        return self._epochs[epoch]

    def _group(self, epoch: int, number: int) -> Integers:
        """The samples of a group in their order."""
        if (epoch, number) not in self._groups:
            _forget(self._groups)
            members = self._epoch(epoch)[0][number]
            starts, sizes = self.runs.starts[members], self.runs.sizes[members]
            before = np.cumsum(sizes) - sizes
            places = np.arange(int(sizes.sum())) + np.repeat(starts - before, sizes)
            random = random_numbers(*self.seed, epoch, number)
            self._groups[epoch, number] = random.permutation(places)
        return self._groups[epoch, number]


def _forget(known: dict[Any, Any]) -> None:
    """Keep the last one."""
    while len(known) > 1:
        del known[next(iter(known))]


def random_numbers(*seed: int) -> np.random.RandomState:
    """A stream of random numbers of its own for every tuple of numbers."""
    return np.random.RandomState([number % 2**32 for number in seed])
