from __future__ import annotations

import json
from collections import Counter
from itertools import islice

import numpy as np
import pytest

from lit_eve_data.packing.buckets import BucketPlan, BucketStep, ImageSource


def source(name: str, counts: dict[tuple[int, int], int], weight: float = 1.0) -> ImageSource:
    sizes = np.array([size for size, count in counts.items() for _ in range(count)], np.int64)
    order = np.random.RandomState(0).permutation(len(sizes))
    return ImageSource(name, weight, sizes[order], np.arange(len(sizes)) // 50)


TALL, WIDE, ODD = (64, 32), (32, 64), (96, 16)
COUNTS = {TALL: 300, WIDE: 100, ODD: 5}


def steps(plan: BucketPlan, count: int) -> list[BucketStep]:
    return [step for step, _ in islice(plan.steps(plan.start), count)]


def test_all_images_of_a_step_have_its_size() -> None:
    plan = BucketPlan([source("a", COUNTS)], batch=20, seed=0)
    for step in steps(plan, 50):
        assert len(step.images) == 20
        assert {tuple(size) for size in plan.sources[0].sizes[step.images].tolist()} == {step.size}


def test_buckets_that_fill_no_step_are_counted_and_left_out() -> None:
    plan = BucketPlan([source("a", COUNTS)], batch=20, seed=0)
    assert plan.left_out == {"a": 5}
    assert plan.samples_per_epoch == 400
    assert {step.size for step in steps(plan, 100)} == {TALL, WIDE}


# 60 steps of 20 are three epochs of 400: a bucket may be one step ahead of or behind its share.
def test_every_image_comes_as_often_as_the_others() -> None:
    plan = BucketPlan([source("a", COUNTS)], batch=20, seed=0)
    counts = Counter(image for step in steps(plan, 60) for image in step.images)
    assert len(counts) == 400
    assert set(counts.values()) <= {2, 3, 4}
    assert sum(step.size == TALL for step in steps(plan, 60)) == pytest.approx(45, abs=1)


def test_weights_are_shares_of_the_steps() -> None:
    plan = BucketPlan([source("a", COUNTS, 3.0), source("b", {TALL: 5_000})], batch=20, seed=1)
    taken = Counter(step.source for step in steps(plan, 400))
    assert taken[0] == pytest.approx(300, abs=2)


@pytest.mark.parametrize("stop", [0, 1, 17, 40])
def test_a_cursor_goes_on_exactly_where_it_was_taken(stop: int) -> None:
    def plan() -> BucketPlan:
        return BucketPlan([source("a", COUNTS), source("b", {WIDE: 30})], batch=7, seed=3)

    whole = list(islice(plan().steps(plan().start), stop + 5))
    cursor = whole[stop - 1][1] if stop else plan().start
    state = json.loads(json.dumps(cursor.state()))
    assert list(islice(plan().steps(plan().cursor(state)), 5)) == whole[stop:]


def test_the_fingerprint_follows_everything() -> None:
    plans = [
        BucketPlan([source("a", COUNTS)], 20, 0),
        BucketPlan([source("a", COUNTS)], 20, 1),
        BucketPlan([source("a", COUNTS)], 21, 0),
        BucketPlan([source("b", COUNTS)], 20, 0),
        BucketPlan([source("a", COUNTS, 2.0)], 20, 0),
        BucketPlan([source("a", {TALL: 300})], 20, 0),
    ]
    assert len({plan.fingerprint() for plan in plans}) == len(plans)


def test_what_cannot_be_planned_says_why() -> None:
    with pytest.raises(ValueError, match="no 500 images of one size: lower batch, or"):
        BucketPlan([source("a", COUNTS)], 500, 0)
    with pytest.raises(ValueError, match="weight above zero"):
        BucketPlan([source("a", COUNTS, 0.0)], 20, 0)
