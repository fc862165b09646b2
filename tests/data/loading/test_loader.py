from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lit_eve_data.batches import IGNORE, PackedBatch, StepShare
from lit_eve_data.disk.reading import RecordStore, RecordView
from lit_eve_data.disk.records import BadSampleError
from lit_eve_data.loading.loader import PackedLoader
from lit_eve_data.loading.working import Share
from lit_eve_data.packing.lengths import SampleEncoder
from lit_eve_data.packing.plan import Pack, PackingPlan

Fingerprint = tuple[bytes, ...]


@pytest.fixture(scope="module")
def plan(scenes: RecordStore, encoder: SampleEncoder) -> PackingPlan:
    """A mixture of two subsets: 0.7 questions, 0.3 captions."""
    sources = [
        encoder.lengths("questions", scenes.subset("questions"), 0.7),
        encoder.lengths("captions", scenes.subset("captions"), 0.3),
    ]
    return PackingPlan(sources, tokens_per_row=256, batch=24, seed=3)


@pytest.fixture
def make(scenes: RecordStore, encoder: SampleEncoder, plan: PackingPlan) -> Any:
    views = [scenes.subset("questions"), scenes.subset("captions")]

    def loader(**changes: Any) -> PackedLoader:
        return PackedLoader(plan, views, encoder, **{"steps": 8, **changes})

    return loader


def fingerprint(batch: PackedBatch) -> Fingerprint:
    tensors = (batch.token_ids, batch.labels, batch.images.patches, batch.image_slots)
    return tuple(tensor.numpy().tobytes() for tensor in tensors)


def rows(batch: PackedBatch) -> list[bytes]:
    return [row.numpy().tobytes() for row in batch.token_ids]


def test_batches_follow_the_plan(make: Any, plan: PackingPlan) -> None:
    batch, (packs, _) = next(iter(make())), next(plan.steps(plan.start))
    assert batch.token_ids.shape == (plan.rows_per_step, 256)
    assert batch.num_samples == sum(map(len, packs))
    assert StepShare(batch.labels_share, batch.images_share) == plan.share(packs, 1)
    assert batch.labels_share == (batch.labels != IGNORE).sum()
    assert batch.images_share == batch.images.num_images


@pytest.mark.parametrize(
    ("stop", "before", "after"),
    [(stop, 0, 0) for stop in (0, 1, 3, 8, 11, 16)]  # 8 and 16 are borders of virtual epochs
    + [(3, 0, 2), (3, 2, 0), (8, 0, 2), (8, 2, 0)],
)
def test_a_run_resumed_anywhere_sees_the_same_batches(
    make: Any, stop: int, before: int, after: int
) -> None:
    straight = make()
    whole = [fingerprint(batch) for _ in range(3) for batch in straight]  # three epochs of eight
    first = make(workers=before)
    seen: list[Fingerprint] = []
    while len(seen) < stop:
        seen += [fingerprint(batch) for batch in islice(first, stop - len(seen))]
    state = json.loads(json.dumps(first.state_dict()))
    second = make(workers=after)
    second.load_state_dict(state)
    while len(seen) < 20:
        seen += [fingerprint(batch) for batch in islice(second, 20 - len(seen))]
    assert seen == whole[:20]


def test_the_state_is_that_of_the_batch_handed_out(make: Any) -> None:
    ahead = make(workers=2)
    iterator = iter(ahead)
    states = [(next(iterator), ahead.state_dict())[1] for _ in range(5)]
    plain = make()
    expected = [plain.state_dict() for _ in islice(plain, 5)]
    assert states == expected
    assert [state["step"] for state in states] == [1, 2, 3, 4, 5]


def test_a_virtual_epoch_has_its_length_and_the_next_goes_on(make: Any) -> None:
    loader = make(share=Share(micro_batches=2))
    assert len(loader) == 16
    assert len(list(loader)) == 16
    assert loader.state_dict()["step"] == 8
    second = list(islice(loader, 2))
    assert loader.state_dict()["epoch"] == 1
    assert loader.state_dict()["step"] == 1
    long = list(islice(make(steps=20, share=Share(micro_batches=2)), 18))
    assert [fingerprint(b) for b in second] == [fingerprint(b) for b in long[16:]]


# The row sets of a step must not depend on how many processes share it: resuming with another
# number of them then neither loses nor repeats a sample.
@pytest.mark.parametrize(("world", "micro"), [(2, 1), (1, 2), (2, 2)])
def test_sharing_a_step_changes_nothing_but_who_does_what(
    make: Any, world: int, micro: int
) -> None:
    alone = [batch for batch in islice(make(), 3)]
    shared = [
        list(islice(make(share=Share(rank, world, micro)), 3 * micro)) for rank in range(world)
    ]
    for step, batch in enumerate(alone):
        parts = [b for rank in shared for b in rank[step * micro : (step + 1) * micro]]
        assert Counter(row for part in parts for row in rows(part)) == Counter(rows(batch))
        share = batch.labels_share / (world * micro)
        assert [part.labels_share for part in parts] == [pytest.approx(share)] * len(parts)
        share = batch.images_share / (world * micro)
        assert [part.images_share for part in parts] == [pytest.approx(share)] * len(parts)
        counts = [part.token_ids.shape[0] for part in parts]
        assert max(counts) - min(counts) <= 1


def test_rounds_that_a_step_does_not_fill_get_empty_rows(make: Any, plan: PackingPlan) -> None:
    world = plan.rows_per_step - 1
    whole = next(iter(make()))
    parts = [b for rank in range(world) for b in islice(make(share=Share(rank, world, 2)), 2)]
    assert [part.token_ids.shape[0] for part in parts] == [1] * (2 * world)
    filled = Counter(row for part in parts for row in rows(part) if part.num_samples)
    assert filled == Counter(rows(whole))
    assert sum(part.labels_share for part in parts) == pytest.approx(whole.labels_share)
    with pytest.raises(ValueError, match=r"too few for .* use fewer devices"):
        make(share=Share(0, world + 2, 1))


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1)])
def test_another_world_size_goes_on_without_loss_or_repetition(
    make: Any, before: int, after: int
) -> None:
    whole = [Counter(rows(batch)) for batch in islice(make(), 7)]
    first = [make(share=Share(rank, before)) for rank in range(before)]
    seen = [[Counter(rows(batch)) for batch in islice(loader, 4)] for loader in first]
    states = [loader.state_dict() for loader in first]
    assert all(state == states[0] for state in states)
    second = [make(share=Share(rank, after)) for rank in range(after)]
    for loader in second:
        loader.load_state_dict(states[0])
    later = [[Counter(rows(batch)) for batch in islice(loader, 3)] for loader in second]
    parts = [*zip(*seen, strict=True), *zip(*later, strict=True)]
    assert [sum(part, Counter[bytes]()) for part in parts] == whole


def test_a_step_can_be_resumed_between_its_micro_batches(make: Any) -> None:
    share = Share(micro_batches=2)
    whole = [fingerprint(batch) for batch in islice(make(share=share), 6)]
    first = make(share=share)
    seen = [fingerprint(batch) for batch in islice(first, 3)]
    second = make(share=share)
    second.load_state_dict(first.state_dict())
    assert seen + [fingerprint(batch) for batch in islice(second, 3)] == whole
    with pytest.raises(ValueError, match="resume with the devices it was saved with"):
        make().load_state_dict(first.state_dict())


@pytest.mark.parametrize("workers", [0, 2])
def test_the_global_random_state_is_left_alone(make: Any, workers: int) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    list(islice(make(workers=workers), 2))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_position_of_other_data_is_refused(make: Any, plan: PackingPlan) -> None:
    other = make()
    state = other.state_dict() | {"plan": replace(plan, seed=4).fingerprint()}
    with pytest.raises(ValueError, match="belongs to another order"):
        other.load_state_dict(state)


def test_too_few_rows_to_share_say_what_to_change(make: Any, plan: PackingPlan) -> None:
    with pytest.raises(ValueError, match="Raise batch, lower tokens_per_row or use fewer"):
        make(share=Share(0, plan.rows_per_step + 1))


@pytest.fixture
def damaged(scenes_directory: Path, tmp_path: Path) -> RecordStore:
    """A dataset in which one sample's pixels changed after it was prepared."""
    directory = Path(shutil.copytree(scenes_directory, tmp_path / "copy"))
    chunk = directory / "train/chunk-0-0.bin"
    content = bytearray(chunk.read_bytes())
    content[-10] ^= 4
    chunk.write_bytes(content)
    return RecordStore(directory)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_sample_is_counted_and_replaced_by_nothing(
    damaged: RecordStore, scenes: RecordStore, encoder: SampleEncoder, workers: int
) -> None:
    plan = PackingPlan([encoder.lengths("scenes", damaged.view, 1.0)], 256, 100, 0)
    bad = int(np.bincount(damaged.sidecar.chunk)[0]) - 1
    good = PackedLoader(plan, [scenes.view], encoder, steps=4)
    loader = PackedLoader(plan, [damaged.view], encoder, steps=4, workers=workers)
    failed = 0
    for whole, batch, (packs, _) in zip(good, loader, plan.steps(plan.start), strict=False):
        wanted = sum(index == bad for pack in packs for _, index in pack)
        assert batch.num_failed == wanted
        assert batch.num_samples == whole.num_samples - wanted
        if not wanted:
            assert fingerprint(batch) == fingerprint(whole)
        failed += wanted
    assert failed >= 1
    assert loader.failures == Counter({"damaged": failed})
    assert loader.num_samples == good.num_samples


def test_too_many_bad_samples_stop_the_run(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: RecordStore, index: int) -> None:
        raise BadSampleError("image", f"sample {index} is no picture")

    monkeypatch.setattr(RecordStore, "__getitem__", fail)
    with pytest.raises(RuntimeError, match=r"\d+ x image\), more than 0\.1%.*is no picture"):
        next(iter(make()))


def test_steps_are_announced_ahead_of_their_turn_and_the_stream_stays(
    make: Any, plan: PackingPlan
) -> None:
    announced: list[list[Pack]] = []
    plain, loader = make(), make()
    loader._ahead, loader._lookahead = announced.append, 3
    batches = iter(loader)
    for number, expected in enumerate(islice(plain, 8)):
        assert fingerprint(next(batches)) == fingerprint(expected)
        assert len(announced) == number + 4
    assert announced[:8] == [rows for rows, _ in islice(plan.steps(plan.start), 8)]


def test_only_this_processs_part_of_a_dataset_elsewhere_is_fetched_ahead(
    make: Any, plan: PackingPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RecordStore, "is_elsewhere", True)
    asked: list[tuple[RecordView, list[int]]] = []
    monkeypatch.setattr(RecordView, "fetch_ahead", lambda view, n: asked.append((view, list(n))))
    loader = make(share=Share(1, 2))
    next(iter(loader))
    first, _ = next(plan.steps(plan.start))
    mine = [sample for pack in first[len(first) // 2 :] for sample in pack]
    assert [len(places) for _, places in asked[:2]] == [
        sum(source == number for source, _ in mine) for number in (0, 1)
    ]
    assert asked[0][1] == [index for source, index in mine if source == 0]
    assert len(asked) == 2 * (loader._lookahead + 1)
    assert loader._lookahead * plan.samples_per_step >= 2_000
