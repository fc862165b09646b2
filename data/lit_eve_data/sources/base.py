"""What can be prepared: a source has splits of inputs, and a maker that turns one into a record."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from lit_eve_data.sources.validation import SMALLEST_SIDE, ImageRules

T = TypeVar("T")


class Maker(Protocol):
    """Turns an input into a record; travels to worker processes."""

    def __call__(self, entry: Any) -> bytes:
        """The record of an input.

        Raises:
            BadSampleError: if the input cannot be used, with the reason.
        """

    def name(self, entry: Any) -> str:
        """What to call an input in a report."""


class Source(Protocol):
    """Inputs in splits."""

    def description(self) -> dict[str, Any]:
        """Plain JSON from which `source_from` makes the source again; says all that matters."""

    def splits(self) -> Mapping[str, Sequence[Any]]:
        """The inputs of each split in the order they are written: a random one."""

    @property
    def maker(self) -> Maker:
        """What makes the records."""


@dataclass(frozen=True)
class Shuffled(Sequence[T], Generic[T]):
    """Some entries of a sequence in another order, without copying them."""

    entries: Sequence[T]
    order: Sequence[int]

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, place: Any) -> Any:
        return self.entries[self.order[place]]


def shuffled_splits(
    entries: Sequence[T], groups: Sequence[str] | None, held_out: float, seed: int
) -> dict[str, Sequence[T]]:
    """Entries in random order, with a share held out for validation.

    Args:
        entries: all inputs.
        groups: of each entry; entries of one group, such as those about one image, are held out
            together. None: every entry is a group of its own.
        held_out: share of the groups for `val`.
        seed: of the order.
    """
    random = np.random.RandomState(seed)
    codes = np.arange(len(entries))
    if groups is not None:
        codes = np.unique(np.array(groups, np.str_), return_inverse=True)[1]
    count = int(codes.max()) + 1 if len(codes) else 0
    wanted = round(count * held_out)
    if held_out > 0 and count > 1:
        wanted = max(1, wanted)
    held = np.zeros(count, bool)
    held[random.permutation(count)[:wanted]] = True
    order = random.permutation(len(entries))
    away = held[codes[order]]
    splits = {"train": order[~away].tolist(), "val": order[away].tolist()}
    return {name: Shuffled(entries, places) for name, places in splits.items() if places}


def fingerprint(source: Source) -> str:
    """Names the dataset a source makes: the same description, the same name."""
    text = json.dumps(source.description(), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class FileOptions:
    """What is done with files from elsewhere."""

    held_out: float = 0.01
    """Share that is kept from training, as the split `val`."""
    limit: int | None = None
    """Use only the first inputs; None uses all."""
    max_side: int | None = None
    """Longer images are scaled down to it; None keeps all sizes."""
    decode: bool = False
    """Decode every pixel while checking."""
    seed: int = 0
    """Of the order."""

    def __post_init__(self) -> None:
        if not 0 <= self.held_out < 1:
            raise ValueError(f"held_out is {self.held_out}: choose a share from 0 to below 1.")
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit is {self.limit}: use at least one input.")
        if self.max_side is not None and self.max_side < SMALLEST_SIDE:
            raise ValueError(f"max_side is {self.max_side}: images need {SMALLEST_SIDE} pixels.")

    @property
    def rules(self) -> ImageRules:
        """For images."""
        return ImageRules(self.max_side, self.decode)

    def as_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return asdict(self)


def file_mark(path: Path) -> dict[str, Any]:
    """A file, and what changes when it does: enough to go on only with the same one."""
    about = path.stat()
    return {"path": str(path.resolve()), "bytes": about.st_size, "changed": about.st_mtime_ns}
