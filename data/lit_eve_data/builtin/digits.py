"""Handwritten digits: scikit-learn's 1,797 scans of 8 x 8 pixels, split by scan, drawn at any size.

Shapes: N scans of the split, G side of a drawn glyph in pixels.
"""

from __future__ import annotations

import gzip
import importlib.util
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Split = Literal["train", "val", "test"]

SPLITS: tuple[Split, ...] = ("train", "val", "test")
SCAN_SIDE = 8
SHARES: dict[Split, float] = {"train": 0.70, "val": 0.15, "test": 0.15}
_SPLIT_SEED = 20  # one for everybody: a scan held out in one dataset is held out in all of them
_STROKE_GAIN = 1.15  # enlarging flattens the peaks a little; more would fill the loops of an 8
_INK = 0.25  # darker than this counts as ink when a box is drawn around a scan


@dataclass(frozen=True)
class Scans:
    """The scans of one split and their drawings, kept per size."""

    ink: NDArray[np.float32]
    """(N, 8, 8) in [0, 1]: the share of each pixel the pen covered."""
    digits: NDArray[np.int64]
    """(N,) the digit each scan shows."""
    bounds: NDArray[np.float64]
    """(N, 4) x0, y0, x1, y1 of the ink as shares of the scan's side."""
    _drawn: dict[int, NDArray[np.float32]] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.digits)

    def draw(self, size: int) -> NDArray[np.float32]:
        """Opacity of every scan drawn `size` pixels a side, (N, G, G) in [0, 1]."""
        if size not in self._drawn:
            spread = _bicubic(size)  # (G, 8)
            drawn = spread @ self.ink @ spread.T  # (N, G, G)
            self._drawn[size] = np.clip(drawn * _STROKE_GAIN, 0.0, 1.0).astype(np.float32)
        return self._drawn[size]


@cache
def load_scans(split: Split) -> Scans:
    """The scans of `split`: 70 % train, 15 % val, 15 % test of every digit, always the same."""
    with gzip.open(bundled("data/digits.csv.gz"), "rt") as lines:
        table = np.loadtxt(lines, delimiter=",", dtype=np.int64)  # (1797, 65): pixels, digit
    ink = table[:, :-1].reshape(-1, SCAN_SIDE, SCAN_SIDE).astype(np.float32) / 16
    digits = table[:, -1]
    chosen = np.concatenate([_members(digits, digit, split) for digit in range(10)])
    ink, digits = ink[chosen], digits[chosen]
    return Scans(ink, digits, _bounds(ink))


def bundled(name: str) -> Path:
    """A file of scikit-learn's data sets, found without the seconds that importing it takes.

    Raises:
        ValueError: if scikit-learn is not installed or keeps its files elsewhere.
    """
    spec = importlib.util.find_spec("sklearn")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / "datasets" / name
        if path.is_file():
            return path
    raise ValueError(
        f"scikit-learn's file datasets/{name} was not found: scenes are drawn from it. Install "
        "scikit-learn in the version range of this project."
    )


def _members(digits: NDArray[np.int64], digit: int, split: Split) -> NDArray[np.int64]:
    """Indices of the scans of `digit` that belong to `split`."""
    order = np.random.RandomState(_SPLIT_SEED + digit).permutation(np.flatnonzero(digits == digit))
    first = round(len(order) * SHARES["train"])
    second = round(len(order) * (SHARES["train"] + SHARES["val"]))
    parts = {"train": order[:first], "val": order[first:second], "test": order[second:]}
    return parts[split].astype(np.int64)


def _bounds(ink: NDArray[np.float32]) -> NDArray[np.float64]:
    """The smallest box around the ink of each scan, (N, 4)."""
    dark = ink > _INK  # (N, 8, 8)
    across, down = np.any(dark, axis=1, keepdims=False), np.any(dark, axis=2)  # (N, 8) each
    left, top = across.argmax(axis=1), down.argmax(axis=1)
    right = SCAN_SIDE - across[:, ::-1].argmax(axis=1)
    bottom = SCAN_SIDE - down[:, ::-1].argmax(axis=1)
    return np.stack([left, top, right, bottom], axis=1) / SCAN_SIDE


def _bicubic(size: int) -> NDArray[np.float64]:
    """Weights that enlarge 8 samples to `size`, (G, 8); outside the scan there is blank paper.

    Source: Keys 1981, cubic convolution, a = -0.5.
    """
    centres = (np.arange(size) + 0.5) * SCAN_SIDE / size - 0.5
    gap = np.abs(centres[:, None] - np.arange(SCAN_SIDE))  # (G, 8)
    near = 1.5 * gap**3 - 2.5 * gap**2 + 1
    far = -0.5 * gap**3 + 2.5 * gap**2 - 4 * gap + 2
    return np.where(gap < 1, near, np.where(gap < 2, far, 0.0))
