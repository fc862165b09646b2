"""What a plan has to know of every sample without reading it: kind, image sizes, place in chunks.

Shapes: N samples of a split, I images over all samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

NAME = "samples.npz"


@dataclass(frozen=True)
class Sidecar:
    """Facts of the samples of a split, in stored order."""

    kinds: tuple[str, ...]
    """The kinds there are."""
    kind: NDArray[np.int64]
    """(N,) index into `kinds`."""
    num_images: NDArray[np.int64]
    """(N,)"""
    sizes: NDArray[np.int64]
    """(I, 2) height and width of every image, sample after sample."""
    num_characters: NDArray[np.int64]
    """(N,) characters of all turns."""
    chunk: NDArray[np.int64]
    """(N,) number of the chunk a sample lies in."""

    def __len__(self) -> int:
        return len(self.kind)

    @property
    def first_image(self) -> NDArray[np.int64]:
        """(N + 1,) where each sample's images begin in `sizes`."""
        return np.concatenate([np.zeros(1, np.int64), np.cumsum(self.num_images)])


class SidecarRows:
    """Collects the facts of samples while they are written."""

    def __init__(self) -> None:
        self.kinds: list[str] = []
        self._rows: list[tuple[int, int, int]] = []
        self._sizes: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, header: dict[str, Any]) -> None:
        """Append a sample, given the header of its record."""
        if header["kind"] not in self.kinds:
            self.kinds.append(header["kind"])
        characters = sum(len(turn["content"]) for turn in header["turns"])
        self._rows.append((self.kinds.index(header["kind"]), len(header["images"]), characters))
        self._sizes.extend((image[0], image[1]) for image in header["images"])

    def counts(self) -> dict[str, int]:
        """Samples of each kind."""
        codes = [row[0] for row in self._rows]
        return {kind: codes.count(number) for number, kind in enumerate(self.kinds)}

    def write(self, directory: Path, chunk_sizes: list[int]) -> None:
        """Write `samples.npz`.

        Args:
            directory: of the split.
            chunk_sizes: samples in every chunk, in order.
        """
        rows = np.array(self._rows, np.int64).reshape(-1, 3)
        np.savez(
            directory / NAME,
            kinds=np.array(self.kinds, np.str_),
            kind=rows[:, 0].astype(np.uint16),
            num_images=rows[:, 1].astype(np.uint16),
            num_characters=rows[:, 2].astype(np.uint32),
            sizes=np.array(self._sizes, np.uint32).reshape(-1, 2),
            chunk=np.repeat(np.arange(len(chunk_sizes)), chunk_sizes).astype(np.uint32),
        )


def read_sidecar(directory: Path) -> Sidecar:
    """The facts of a split.

    Raises:
        ValueError: if the file is damaged.
    """
    path = directory / NAME
    try:
        with np.load(path, allow_pickle=False) as arrays:
            numbers = {
                name: arrays[name].astype(np.int64)
                for name in ("kind", "num_images", "sizes", "num_characters", "chunk")
            }
            return Sidecar(kinds=tuple(str(kind) for kind in arrays["kinds"]), **numbers)
    except (KeyError, OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read ({error}): prepare the dataset again.") from error
