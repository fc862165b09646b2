from __future__ import annotations

import json
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lit_eve_data.batches import ImageBatch
from lit_eve_data.disk.reading import RecordStore
from lit_eve_data.disk.records import BadSampleError, StoredImage
from lit_eve_data.encoding.crops import Crop
from lit_eve_data.encoding.images import Native, Square
from lit_eve_data.loading.image_loader import ImageLoader, ImagePass, ImageView
from lit_eve_data.loading.working import Share
from lit_eve_data.packing.buckets import BucketPlan

Make = Callable[..., ImageLoader]


@pytest.fixture
def make(scenes: RecordStore) -> Make:
    def loader(policy: Any = Square(32), **changes: Any) -> ImageLoader:  # noqa: B008
        view = ImageView(scenes.view, policy, 8)
        plan = BucketPlan([view.source("scenes", 1.0)], batch=12, seed=0)
        return ImageLoader(plan, [view], **{"steps": 6, **changes})

    return loader


def same(one: list[ImageBatch], other: list[ImageBatch]) -> bool:
    pairs = zip(one, other, strict=True)
    return all(torch.equal(a.pixels, b.pixels) for a, b in pairs)


def test_pixels_are_those_of_the_images(scenes: RecordStore) -> None:
    view = ImageView(scenes.view, Native(), 8)
    plan = BucketPlan([view.source("scenes", 1.0)], batch=4, seed=0)
    step, _ = next(plan.steps(plan.start))
    batch = next(iter(ImageLoader(plan, [view], steps=1)))
    expected = np.stack([scenes[image].images[0].pixels() for image in step.images])
    assert batch.pixels.shape == (4, 3, *step.size)
    pixels = torch.from_numpy(expected).permute(0, 3, 1, 2) / 255
    assert torch.allclose(batch.pixels, pixels)
    assert batch.pixels.is_contiguous()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("policy", [Square(32), Crop(24, (1.0, 1.5), flip=True)])
def test_a_run_resumed_sees_the_same_crops(make: Make, policy: Any, workers: int) -> None:
    straight = make(policy)
    whole = [batch for _ in range(2) for batch in straight]
    first = make(policy)
    seen = list(islice(first, 4))
    second = make(policy, workers=workers)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    seen += [batch for _ in range(2) for batch in second]
    assert same(seen, whole)


@pytest.mark.parametrize(("world", "micro"), [(2, 1), (2, 3)])
def test_sharing_a_step_changes_nothing_but_who_does_what(
    make: Make, world: int, micro: int
) -> None:
    alone = list(islice(make(Crop(24)), 2))
    shared = [
        list(islice(make(Crop(24), share=Share(rank, world, micro)), 2 * micro))
        for rank in range(world)
    ]
    for step, batch in enumerate(alone):
        parts = [b.pixels for rank in shared for b in rank[step * micro : (step + 1) * micro]]
        assert {len(part) for part in parts} == {12 // (world * micro)}
        joined = {image.numpy().tobytes() for part in parts for image in part}
        assert joined == {image.numpy().tobytes() for image in batch.pixels}


def test_a_batch_that_cannot_be_shared_equally_says_so(make: Make) -> None:
    with pytest.raises(ValueError, match="make it a multiple of 5"):
        make(share=Share(0, 5))


def test_every_epoch_has_other_crops_and_held_out_pictures_always_the_middle(
    make: Make, scenes: RecordStore
) -> None:
    loader = make(Crop(24, (1.0, 1.5)), steps=300 // 12)  # two epochs of the same pictures
    first, second = (
        {image.numpy().tobytes() for batch in loader for image in batch.pixels} for _ in range(2)
    )
    assert len(first) == 300
    assert len(first & second) < 30
    for batch in ImagePass(ImageView(scenes.view, Crop(24), 8), 8, limit=8):
        pixels = np.stack([Crop(24).cut(scenes[n].images[0].pixels(), None) for n in range(8)])
        assert torch.allclose(batch.pixels, torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255)


def test_a_pass_holds_every_image_once(scenes_directory: Path) -> None:
    view = ImageView(RecordStore(scenes_directory, "val").view, Native(), 16)
    for world in (1, 2, 3):
        ranks = [list(ImagePass(view, 8, share=Share(rank, world))) for rank in range(world)]
        assert len({len(batches) for batches in ranks}) == 1
        sizes = [len(batch.pixels) for batches in ranks for batch in batches]
        assert sum(sizes) == 60
        assert 1 <= min(sizes) <= max(sizes) <= 8
    once = ImagePass(view, 8)
    assert same(list(once), list(once))
    assert sum(len(batch.pixels) for batch in ImagePass(view, 8, limit=21)) == 21
    with pytest.raises(ValueError, match="1 held-out images are too few for 2"):
        ImagePass(view, 8, limit=1, share=Share(0, 2))


def test_a_broken_image_is_counted_and_left_out(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = next(iter(make()))
    broken = iter([False, True] + [False] * 100)
    pixels = StoredImage.pixels

    def sometimes(self: StoredImage) -> Any:
        if next(broken):
            raise BadSampleError("image", "no picture")
        return pixels(self)

    monkeypatch.setattr(StoredImage, "pixels", sometimes)
    loader = make()
    batch = next(iter(loader))
    kept = [n for n in range(12) if n != 1]
    assert torch.equal(batch.pixels, whole.pixels[kept])
    assert loader.failures == {"image": 1}
    assert loader.num_samples == 12


def test_crops_must_be_whole_codes(scenes: RecordStore) -> None:
    with pytest.raises(ValueError, match="use 24"):
        ImageView(scenes.view, Crop(30), 8)
