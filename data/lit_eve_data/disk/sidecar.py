"""What a plan has to know of every sample without reading it: kind, image sizes, place in chunks.

Shapes: N samples of a split, I images over all samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

NAME = "samples.npz"
FACTS, SIZES = "facts.bin", "sizes.bin"
"""Where the facts are collected while a split is written."""
FACT = np.dtype([("kind", "<u2"), ("images", "<u2"), ("characters", "<u4"), ("checksum", "<u4")])
SIZE = np.dtype("<u4")


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


def joined(parts: Sequence[Sidecar]) -> Sidecar:
    """The facts of several splits, one after another; chunks are numbered through."""
    kinds = tuple(dict.fromkeys(kind for part in parts for kind in part.kinds))
    codes, chunks, before = [], [], 0
    for part in parts:
        codes.append(np.array([kinds.index(kind) for kind in part.kinds], np.int64)[part.kind])
        chunks.append(part.chunk + before)
        before += int(part.chunk.max()) + 1
    return Sidecar(
        kinds=kinds,
        kind=np.concatenate(codes),
        num_images=np.concatenate([part.num_images for part in parts]),
        sizes=np.concatenate([part.sizes for part in parts]),
        num_characters=np.concatenate([part.num_characters for part in parts]),
        chunk=np.concatenate(chunks),
    )


def write_sidecar(folder: Path, kinds: Sequence[str], chunk_sizes: Sequence[int]) -> dict[str, int]:
    """Write `samples.npz` from the facts collected in a split's folder.

    Args:
        folder: of the split, with `facts.bin` and `sizes.bin`.
        kinds: what the codes in the facts stand for.
        chunk_sizes: samples in every chunk, in order.

    Returns:
        Samples of each kind.
    """
    facts = np.fromfile(folder / FACTS, FACT)
    np.savez(
        folder / NAME,
        kinds=np.array(kinds, np.str_),
        kind=facts["kind"],
        num_images=facts["images"],
        num_characters=facts["characters"],
        sizes=np.fromfile(folder / SIZES, SIZE).reshape(-1, 2),
        chunk=np.repeat(np.arange(len(chunk_sizes), dtype=np.uint32), chunk_sizes),
    )
    counts = np.bincount(facts["kind"], minlength=len(kinds)).tolist()
    return dict(zip(kinds, counts, strict=True))


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
