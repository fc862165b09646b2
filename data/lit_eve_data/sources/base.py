"""What can be prepared: a source has splits of inputs, and a maker that turns one into a record."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from lit_eve_data.sources.validation import SMALLEST_SIDE, ImageRules

T = TypeVar("T")
_MARKED = 4096  # bytes looked at in the middle and at the end of a picture


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
    entries: Sequence[T],
    marks: Sequence[Sequence[str]] | None,
    held_out: float,
    seed: int,
    mixed: bool = False,
) -> dict[str, Sequence[T]]:
    """Entries in random order, with a share held out for validation.

    Args:
        entries: all inputs.
        marks: of each entry, of its images for example; entries that share one, directly or through
            others, are held out together. None: every entry stands alone.
        held_out: share of such groups for `val`.
        seed: of the order, and of what is held out.
        mixed: the entries are in a random order already.
    """
    random = np.random.RandomState(seed)
    codes = np.arange(len(entries)) if marks is None else _joined(marks)
    count = int(codes.max()) + 1 if len(codes) else 0
    wanted = round(count * held_out)
    if held_out > 0 and count > 1:
        wanted = max(1, wanted)
    held = np.zeros(count, bool)
    held[random.permutation(count)[:wanted]] = True
    order = np.arange(len(entries)) if mixed else random.permutation(len(entries))
    away = held[codes[order]]
    splits = {"train": order[~away].tolist(), "val": order[away].tolist()}
    return {name: Shuffled(entries, places) for name, places in splits.items() if places}


def _joined(marks: Sequence[Sequence[str]]) -> NDArray[np.int64]:
    """(N,) the group of each entry: 0, 1, ... without gaps."""
    parent = list(range(len(marks)))

    def root(place: int) -> int:
        while parent[place] != place:
            parent[place] = parent[parent[place]]
            place = parent[place]
        return place

    first: dict[str, int] = {}
    for place, own in enumerate(marks):
        for mark in own:
            parent[root(place)] = root(first.setdefault(mark, place))
    roots = np.array([root(place) for place in range(len(marks))], np.int64)
    return np.asarray(np.unique(roots, return_inverse=True)[1], np.int64)


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
    decode: bool = True
    """Decode every image once while checking."""
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


def picture_mark(size: int, piece: Callable[[int, int], bytes]) -> str:
    """Two files of a picture that are equal have the same mark; others hardly ever do.

    Reading all of every file twice would double the work: the length, the middle and the end tell
    pictures apart, and two that are taken for one are only held out together.

    Args:
        size: bytes of the file.
        piece: reads bytes of it, given where from and how many.
    """
    digest = hashlib.sha1(str(size).encode(), usedforsecurity=False)
    for start in (size // 2, max(0, size - _MARKED)):
        digest.update(piece(start, min(_MARKED, size - start)))
    return digest.hexdigest()


def files_mark(folder: Path, names: Iterable[Any]) -> str:
    """Changes when one of the files does, or is there no more; names may be anything.

    Args:
        folder: that the names are relative to.
        names: of the files, as somebody wrote them.
    """
    digest = hashlib.sha256()
    for name in sorted({name for name in names if isinstance(name, str)}):
        about = None
        with contextlib.suppress(OSError, ValueError):  # a name that no file has
            about = (folder / name).stat()
        mark = None if about is None else (about.st_size, about.st_mtime_ns)
        digest.update(f"{name}\0{mark}\0".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def file_mark(path: Path) -> dict[str, Any]:
    """A file, and what changes when it does: enough to go on only with the same one."""
    about = path.stat()
    return {"path": str(path.resolve()), "bytes": about.st_size, "changed": about.st_mtime_ns}
