"""Whatever stops a training, however often, with whatever processes: the stream goes on."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_eve_data.loading.resumable import ResumableLoader
from lit_eve_data.loading.working import Made, Share
from lit_eve_data.packing.buckets import BucketPlan, ImageSource
from lit_eve_data.packing.plan import PackingPlan, SourceLengths

Legs = list[tuple[int, int, int]]
"""(steps, processes, micro-batches) between two resumes."""
LEGS = st.lists(
    st.tuples(st.integers(0, 30), st.sampled_from([1, 2, 3]), st.sampled_from([1, 2])),
    min_size=1,
    max_size=5,
)


def packing(seed: int) -> PackingPlan:
    """A mixture of a large dataset and one so small that it runs out often."""
    random = np.random.default_rng(0)
    sources = []
    for name, count, weight in (("a", 300, 2.0), ("b", 40, 1.0)):
        tokens, ones = random.integers(4, 60, count), np.ones(count, np.int64)
        chunk = np.arange(count) // 16
        sources.append(SourceLengths(name, weight, tokens, ones, images=ones, chunk=chunk))
    return PackingPlan(sources, tokens_per_row=96, batch=30, seed=seed)


def buckets(seed: int) -> BucketPlan:
    sizes = np.random.default_rng(0).choice([16, 32], (200, 2))
    return BucketPlan([ImageSource("a", 1.0, sizes, np.arange(200) // 16)], batch=12, seed=seed)


def items(step: Any) -> list[Any]:
    """What a step consists of, as something that can be counted."""
    content = step.images if hasattr(step, "images") else step
    return [tuple(map(tuple, one)) if isinstance(one, list) else one for one in content]


def loader(plan: Any, steps: int, share: Share) -> ResumableLoader[Any, Sequence[Any]]:
    """Hands out what a batch would be made of."""
    return ResumableLoader(
        plan,
        lambda step: share.of(items(step)),
        lambda task: Made(task, len(task), []),
        steps,
        share,
    )


def stream(plan: Any, legs: Legs, epoch: int) -> list[Counter[Any]]:
    """The samples of every step over all processes, resumed from JSON between the legs."""
    state: dict[str, Any] | None = None
    seen: list[Counter[Any]] = []
    for count, world, micro in legs:
        ranks = [loader(plan, epoch, Share(rank, world, micro)) for rank in range(world)]
        parts: list[list[Any]] = []
        for rank in ranks:
            if state is not None:
                rank.load_state_dict(json.loads(json.dumps(state)))
            batches: list[Any] = []
            while len(batches) < count * micro:
                batches += islice(iter(rank), count * micro - len(batches))
            parts.append(batches)
        for step in range(count):
            pieces = [part for rank in parts for part in rank[step * micro : (step + 1) * micro]]
            seen.append(Counter(item for piece in pieces for item in piece))
        state = ranks[0].state_dict()
        assert all(rank.state_dict() == state for rank in ranks)
    return seen


@settings(max_examples=25, deadline=None, derandomize=True)
@given(legs=LEGS, epoch=st.integers(1, 17), seed=st.integers(0, 3), kind=st.booleans())
def test_a_stream_is_the_same_however_it_was_interrupted(
    legs: Legs, epoch: int, seed: int, kind: bool
) -> None:
    plan: Any = packing(seed) if kind else buckets(seed)
    total = sum(count for count, _, _ in legs)
    straight = [Counter(items(step)) for step, _ in islice(plan.steps(plan.start), total)]
    assert stream(plan, legs, epoch) == straight
