"""Samples put one after another in rows: the `PackedBatch` a step works on.

Shapes: R rows, T token slots a row, V visual tokens, N samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from lit_eve_data.batches import IGNORE, PackedBatch, StepShare, StoredFeatures
from lit_eve_data.disk.features import Features
from lit_eve_data.disk.records import Pixels, Sample
from lit_eve_data.encoding.images import ImageCutter
from lit_eve_data.encoding.text import ChatText, Encoded


@dataclass(frozen=True)
class Item:
    """A sample ready to be put in a row."""

    encoded: Encoded
    images: list[Pixels]
    kind: str
    seen: list[Features] | None = None
    """A teacher's features of the images, if they are streamed."""


def make_item(sample: Sample, text: ChatText, cutter: ImageCutter) -> Item:
    """Tokens and pixels of a sample.

    Raises:
        ValueError: if its images cannot be decoded or its turns cannot be encoded.
    """
    visual = [cutter.num_tokens(image.height, image.width) for image in sample.images]
    pixels = [image.pixels() for image in sample.images]
    return Item(text.encode(sample.turns, visual), pixels, sample.kind)


def collate(
    rows: Sequence[Sequence[Item]],
    tokens_per_row: int,
    pad_id: int,
    cutter: ImageCutter,
    share: StepShare | None = None,
    num_failed: int = 0,
) -> PackedBatch:
    """Put the items of each row one after another.

    Args:
        rows: the items of each row, R lists.
        tokens_per_row: slots of a row, T.
        pad_id: what stands at images and padding.
        cutter: turns the images into patches.
        share: see `PackedBatch`; None: this batch is the whole step.
        num_failed: samples that are missing here because they could not be read.

    Raises:
        ValueError: if a row's items are longer than the row.
    """
    written = _Rows(len(rows), tokens_per_row, pad_id)
    for row, items in enumerate(rows):
        written.write(row, items)
    every = [item for items in rows for item in items]
    images = [image for item in every for image in item.images]
    share = share or StepShare.of(int((written.labels != IGNORE).sum()), len(images), 1)
    return PackedBatch(
        token_ids=torch.from_numpy(written.ids),
        labels=torch.from_numpy(written.labels),
        position_ids=torch.from_numpy(written.positions),
        segment_ids=torch.from_numpy(written.segments),
        images=cutter.cut(images),
        image_slots=torch.from_numpy(np.concatenate(written.slots)),
        sample_segments=torch.tensor(written.samples, dtype=torch.int64).reshape(-1, 2),
        kinds=tuple(item.kind for item in every),
        labels_share=share.labels,
        images_share=share.images,
        num_failed=num_failed,
        seen=_seen(every),
    )


class _Rows:
    """The slots of a batch while items are written into them; fields as of `PackedBatch`."""

    def __init__(self, num_rows: int, num_slots: int, pad_id: int) -> None:
        shape = (num_rows, num_slots)
        self.ids = np.full(shape, pad_id, np.int64)
        self.labels = np.full(shape, IGNORE, np.int64)
        self.positions = np.empty(shape, np.int64)
        self.segments = np.zeros(shape, np.int64)
        self.slots: list[npt.NDArray[np.int64]] = [np.zeros(0, np.int64)]
        self.samples: list[tuple[int, int]] = []
        self._counting = np.arange(num_slots)

    def write(self, row: int, items: Sequence[Item]) -> None:
        """Put a row's items one after another, and number what is left of it.

        Raises:
            ValueError: if they are longer than the row.
        """
        start, num_slots = 0, len(self._counting)
        for segment, item in enumerate(items, 1):
            stop = start + len(item.encoded)
            if stop > num_slots:
                raise ValueError(
                    f"row {row} needs {stop} slots or more but has {num_slots}: the lengths "
                    "it was planned with are not those of its samples. Delete the cached lengths."
                )
            self.ids[row, start:stop] = item.encoded.ids
            self.positions[row, start:stop] = self._counting[: stop - start]
            self.segments[row, start:stop] = segment
            for first, last in item.encoded.answers:
                span = slice(max(first, 1) + start, last + start)
                self.labels[row, span] = self.ids[row, span]
            base = row * num_slots + start
            self.slots.extend(np.arange(base + a, base + b) for a, b in item.encoded.images)
            self.samples.append((row, segment))
            start = stop
        self.positions[row, start:] = self._counting[: num_slots - start]


def _seen(items: Sequence[Item]) -> StoredFeatures | None:
    """The features of all images of a batch, or None if they are not streamed."""
    if not items or any(item.seen is None for item in items):
        return None
    grids = [features for item in items for features in item.seen or ()]
    flat = [features.reshape(-1, features.shape[-1]) for features in grids]
    joined = np.concatenate(flat) if flat else np.zeros((0, 0), np.float16)
    return StoredFeatures(torch.from_numpy(joined), tuple((g.shape[0], g.shape[1]) for g in grids))
