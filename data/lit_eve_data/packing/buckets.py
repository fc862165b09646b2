"""Which images make which step, all of one size: the plan of the image tokenizers.

Images are put in buckets by the size they will have. Every step takes the next images of one
bucket, chosen so that each bucket gets its share of the steps as evenly as can be.

Source: the choice is the additive recurrence with the golden ratio, whose counts stay within a few
steps of their shares for ever (Kronecker sequence).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lit_eve_data.packing.orders import EpochOrder, Integers, Runs, random_numbers

_GOLDEN = 0.6180339887498949
_EPOCH = 3  # of the streams of random numbers in `packing.plan`
_VERSION = 2
"""Of the order: a position of another one means nothing."""


@dataclass(frozen=True)
class ImageSource:
    """What the plan has to know of one dataset."""

    name: str
    weight: float
    sizes: Integers
    """(I, 2) height and width each image will have."""
    chunk: Integers
    """(I,) the chunk each image lies in, non-decreasing."""


@dataclass(frozen=True)
class Bucket:
    """Images of one source that will have one size."""

    source: int
    size: tuple[int, int]
    images: Integers
    """Numbers of the images in the source."""


@dataclass(frozen=True)
class BucketStep:
    """The images of one step."""

    number: int
    """Of the step in the plan."""
    source: int
    size: tuple[int, int]
    images: list[int]


@dataclass(frozen=True)
class BucketCursor:
    """Where in the plan one stands."""

    step: int
    drawn: tuple[int, ...]
    """Steps each bucket gave so far."""

    def state(self) -> dict[str, Any]:
        """As plain JSON."""
        return {"step": self.step, "drawn": list(self.drawn)}


@dataclass
class BucketPlan:
    """The steps of a mixture of images in buckets.

    Args:
        sources: the datasets.
        batch: images of a step.
        seed: of everything that is drawn.

    Raises:
        ValueError: if no bucket fills a step.
    """

    sources: Sequence[ImageSource]
    batch: int
    seed: int
    buckets: list[Bucket] = field(init=False)
    left_out: dict[str, int] = field(init=False)
    """Images of each source in buckets too small to fill a step, never used."""

    def __post_init__(self) -> None:
        self.buckets, self.left_out = [], {}
        shares = []
        for number, source in enumerate(self.sources):
            found = [b for b in _buckets(number, source) if len(b.images) >= self.batch]
            used = sum(len(bucket.images) for bucket in found)
            self.left_out[source.name] = len(source.sizes) - used
            if not found:
                raise ValueError(
                    f"{source.name} has no {self.batch} images of one size: lower batch, or give "
                    "images one size with the policy `square` or `crop`."
                )
            self.buckets += found
            shares += [source.weight * len(bucket.images) / used for bucket in found]
        if min(shares) <= 0:
            raise ValueError("a mixture needs datasets, each with a weight above zero.")
        self._bounds = np.cumsum(np.array(shares) / sum(shares))
        self._offset = float(random_numbers(self.seed, _EPOCH).random_sample())
        self._orders = [self._order(bucket) for bucket in self.buckets]

    @property
    def start(self) -> BucketCursor:
        """Before the first step."""
        return BucketCursor(0, (0,) * len(self.buckets))

    @property
    def samples_per_epoch(self) -> int:
        """Images of all buckets that fill a step."""
        return sum(len(bucket.images) for bucket in self.buckets)

    def cursor(self, state: Mapping[str, Any]) -> BucketCursor:
        """The cursor whose `state` that is."""
        return BucketCursor(state["step"], tuple(state["drawn"]))

    def steps(self, cursor: BucketCursor) -> Iterator[tuple[BucketStep, BucketCursor]]:
        """Every step from `cursor` on, for ever, each with the cursor after it."""
        drawn = list(cursor.drawn)
        step = cursor.step
        while True:
            place = (self._offset + step * _GOLDEN) % 1.0
            number = min(int(np.searchsorted(self._bounds, place, "right")), len(drawn) - 1)
            bucket = self.buckets[number]
            places = self._orders[number].take(drawn[number] * self.batch, self.batch)
            images = bucket.images[places].tolist()
            drawn[number] += 1
            step += 1
            yield (
                BucketStep(step - 1, bucket.source, bucket.size, images),
                BucketCursor(step, tuple(drawn)),
            )

    def shares(self, cursor: BucketCursor) -> dict[str, tuple[float, float]]:
        """Share of the steps up to `cursor` that each source gave, and the share asked for."""
        total, weights = max(1, sum(cursor.drawn)), sum(source.weight for source in self.sources)
        given = [0] * len(self.sources)
        for bucket, drawn in zip(self.buckets, cursor.drawn, strict=True):
            given[bucket.source] += drawn
        return {
            source.name: (count / total, source.weight / weights)
            for source, count in zip(self.sources, given, strict=True)
        }

    def fingerprint(self) -> str:
        """Changes with everything the plan depends on."""
        digest = zlib.crc32(f"{_VERSION} {self.batch} {self.seed}".encode())
        for source in self.sources:
            digest = zlib.crc32(f"{source.name} {source.weight}".encode(), digest)
            for array in (source.sizes, source.chunk):
                digest = zlib.crc32(np.ascontiguousarray(array, np.int64).data, digest)
        return f"{digest:08x}"

    def _order(self, bucket: Bucket) -> EpochOrder:
        """In which a bucket gives its images."""
        source = self.sources[bucket.source]
        name = zlib.crc32(f"{source.name} {bucket.size}".encode())
        return EpochOrder(Runs.of(source.chunk[bucket.images]), (self.seed, _EPOCH, name))


def _buckets(number: int, source: ImageSource) -> list[Bucket]:
    """The images of a source by size, smallest size first."""
    sizes, which = np.unique(source.sizes, axis=0, return_inverse=True)
    return [
        Bucket(number, (int(size[0]), int(size[1])), np.flatnonzero(which.reshape(-1) == code))
        for code, size in enumerate(sizes)
    ]
