from __future__ import annotations

import numpy as np
import pytest
import torch

from lit_eve_data.batches import IGNORE, ImageLayout, PackedBatch, StepShare
from lit_eve_data.encoding.images import ImageCutter, Native
from lit_eve_data.encoding.text import Encoded
from lit_eve_data.packing.rows import Item, collate

LAYOUT = ImageLayout(patch=2, pool=1, cls=True, row_end=False)
CUTTER = ImageCutter(LAYOUT, Native(), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
PAD = 9


def image(rows: int, columns: int) -> np.ndarray:
    return np.full((2 * rows, 2 * columns, 3), 51 * rows, np.uint8)


# One image of two windows is three visual tokens: class, window, window.
A = Item(Encoded([1, PAD, PAD, PAD, 2, 3, 4], [(5, 7)], [(1, 4)]), [image(1, 2)], "a")
B = Item(Encoded([5, 6, 7, 8], [(1, 2), (3, 4)], []), [], "b")
C = Item(Encoded([PAD, PAD, 1], [(0, 3)], [(0, 2)]), [image(1, 1)], "c")


def batch() -> PackedBatch:
    return collate([[A, C], [B]], tokens_per_row=12, pad_id=PAD, cutter=CUTTER)


# All expected values written down by hand from the contract.
def test_rows_are_laid_out_as_the_contract_says() -> None:
    packed = batch()
    x = IGNORE
    assert packed.token_ids.tolist() == [
        [1, PAD, PAD, PAD, 2, 3, 4, PAD, PAD, 1, PAD, PAD],
        [5, 6, 7, 8, *[PAD] * 8],
    ]
    assert packed.labels.tolist() == [
        [x, x, x, x, x, 3, 4, x, PAD, 1, x, x],
        [x, 6, x, 8, *[x] * 8],
    ]
    assert packed.position_ids.tolist() == [
        [0, 1, 2, 3, 4, 5, 6, 0, 1, 2, 0, 1],
        [0, 1, 2, 3, 0, 1, 2, 3, 4, 5, 6, 7],
    ]
    assert packed.segment_ids.tolist() == [[1] * 7 + [2] * 3 + [0] * 2, [1] * 4 + [0] * 8]
    assert packed.image_slots.tolist() == [1, 2, 3, 7, 8]
    assert packed.images.visual_source.tolist() == [3, 0, 1, 4, 2]
    assert packed.images.window_image.tolist() == [0, 0, 1]
    assert packed.images.grids == ((1, 2), (1, 1))
    assert packed.sample_segments.tolist() == [[0, 1], [0, 2], [1, 1]]
    assert packed.kinds == ("a", "c", "b")
    assert packed.num_samples == 3
    assert torch.allclose(packed.images.patches, torch.full((3, 1, 12), 0.2))


def test_alone_a_batch_is_averaged_over_its_own_labels_and_images() -> None:
    assert batch().labels_share == 6  # 2 of A, 2 of C (its first token never counts), 2 of B
    assert batch().images_share == 2
    part = collate([[B]], 4, PAD, CUTTER, StepShare(2.5, 1.5))
    assert (part.labels_share, part.images_share) == (2.5, 1.5)


def test_a_batch_without_images_or_samples_keeps_its_shapes() -> None:
    empty = collate([[]], tokens_per_row=3, pad_id=PAD, cutter=CUTTER, num_failed=2)
    assert empty.token_ids.tolist() == [[PAD] * 3]
    assert empty.images.patches.shape == (0, 1, 12)
    assert empty.image_slots.shape == (0,)
    assert empty.sample_segments.shape == (0, 2)
    assert empty.num_failed == 2


def test_a_row_that_overflows_is_an_error() -> None:
    with pytest.raises(ValueError, match="10 slots or more but has 8"):
        collate([[A, C]], tokens_per_row=8, pad_id=PAD, cutter=CUTTER)


def test_a_batch_moves_as_a_whole() -> None:
    moved = batch().to("meta")
    assert moved.images.patches.is_meta
    assert moved.labels.is_meta
    assert moved.images.grids == batch().images.grids
