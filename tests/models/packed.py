"""Batches put together by hand for the tests, with loops, apart from the project's own packing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lit_eve_data.batches import IGNORE, ImageLayout, PackedBatch, PackedImages


@dataclass(frozen=True)
class Sample:
    """Parts in order: token ids or images (C, H, W); the last `supervised` tokens are labels."""

    parts: Sequence[list[int] | Tensor]
    supervised: int = 0


def pack_images(images: Sequence[Tensor], layout: ImageLayout, channels: int = 3) -> PackedImages:
    cell, pool, patch = layout.cell, layout.pool, layout.patch
    grids = [(image.shape[1] // cell, image.shape[2] // cell) for image in images]
    num_windows = sum(rows * columns for rows, columns in grids)
    windows: list[Tensor] = []
    owners: list[int] = []
    sources: list[int] = []
    for number, (image, (rows, columns)) in enumerate(zip(images, grids, strict=True)):
        if layout.cls:
            sources.append(num_windows + number)
        for row in range(rows):
            for column in range(columns):
                sources.append(len(windows))
                owners.append(number)
                window = [
                    image[:, y : y + patch, x : x + patch].flatten()
                    for y in range(row * cell, (row + 1) * cell, patch)
                    for x in range(column * cell, (column + 1) * cell, patch)
                ]
                windows.append(torch.stack(window))
            if layout.row_end:
                sources.append(num_windows + len(images))
    empty = torch.zeros(0, pool * pool, channels * patch * patch)
    return PackedImages(
        patches=torch.stack(windows) if windows else empty,
        window_image=torch.tensor(owners, dtype=torch.int64),
        visual_source=torch.tensor(sources, dtype=torch.int64),
        grids=tuple(grids),
    )


def pack(rows: Sequence[Sequence[Sample]], layout: ImageLayout, slots: int) -> PackedBatch:
    """Samples to rows of `slots` token slots, padded at the end."""
    shape = (len(rows), slots)
    ids = torch.zeros(shape, dtype=torch.int64)
    labels = torch.full(shape, IGNORE)
    segments, positions = torch.zeros_like(ids), torch.zeros_like(ids)
    images: list[Tensor] = []
    image_slots: list[int] = []
    samples: list[tuple[int, int]] = []
    for number, row in enumerate(rows):
        slot = 0
        for segment, sample in enumerate(row, start=1):
            start = slot
            for part in sample.parts:
                if isinstance(part, Tensor):
                    grid = (part.shape[1] // layout.cell, part.shape[2] // layout.cell)
                    length = layout.num_tokens(*grid)
                    image_slots += range(number * slots + slot, number * slots + slot + length)
                    images.append(part)
                else:
                    length = len(part)
                    ids[number, slot : slot + length] = torch.tensor(part, dtype=torch.int64)
                slot += length
            labelled = slice(slot - sample.supervised, slot)
            labels[number, labelled] = ids[number, labelled]
            segments[number, start:slot] = segment
            positions[number, start:slot] = torch.arange(slot - start)
            samples.append((number, segment))
        assert slot <= slots
        positions[number, slot:] = torch.arange(slots - slot)
    return PackedBatch(
        token_ids=ids,
        labels=labels,
        position_ids=positions,
        segment_ids=segments,
        images=pack_images(images, layout),
        image_slots=torch.tensor(image_slots, dtype=torch.int64),
        sample_segments=torch.tensor(samples, dtype=torch.int64).view(-1, 2),
        kinds=tuple("test" for _ in samples),
        labels_share=1.0,
        images_share=float(max(1, len(images))),
    )
