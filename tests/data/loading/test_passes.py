from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from lit_eve_data.batches import IGNORE
from lit_eve_data.disk.reading import RecordStore
from lit_eve_data.loading.passes import PackedPass
from lit_eve_data.loading.working import Share
from lit_eve_data.packing.lengths import SampleEncoder


@pytest.fixture
def make(scenes_directory: Path, encoder: SampleEncoder) -> Any:
    view = RecordStore(scenes_directory, "val").view

    def once(**changes: Any) -> PackedPass:
        lengths = encoder.lengths("val", view, 1.0)
        return PackedPass(view, lengths, encoder, **{"tokens_per_row": 256, **changes})

    return once


def test_every_sample_comes_once_and_every_time(make: Any) -> None:
    once = make(rows_per_batch=3)
    first, second = list(once), list(once)
    assert sum(batch.num_samples for batch in first) == 60
    assert len(first) == len(once)
    assert max(batch.token_ids.shape[0] for batch in first) <= 3
    for one, other in zip(first, second, strict=True):
        assert one.token_ids.equal(other.token_ids)


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("rows", [1, 2, 50])
def test_ranks_share_a_pass_in_equal_numbers_of_batches(make: Any, world: int, rows: int) -> None:
    shares = [make(rows_per_batch=rows, share=Share(rank, world)) for rank in range(world)]
    batches = [list(share) for share in shares]
    assert len({len(rank) for rank in batches}) == 1
    kinds = Counter(kind for rank in batches for batch in rank for kind in batch.kinds)
    assert kinds.total() == 60
    assert all(batch.num_samples > 0 for rank in batches for batch in rank)


# A "loss" of 1 per supervised token must come out as a mean of exactly 1, whatever the split.
@pytest.mark.parametrize("world", [1, 2])
def test_batches_average_to_the_mean_over_all_tokens(make: Any, world: int) -> None:
    means = []
    for rank in range(world):
        once = make(rows_per_batch=2, share=Share(rank, world))
        losses = [(batch.labels != IGNORE).sum().item() / batch.labels_share for batch in once]
        means.append(sum(losses) / len(losses))
    assert sum(means) / world == pytest.approx(1.0)


def test_workers_give_the_same_batches(make: Any) -> None:
    plain, ahead = list(make(rows_per_batch=2)), list(make(rows_per_batch=2, workers=1))
    assert all(a.token_ids.equal(b.token_ids) for a, b in zip(plain, ahead, strict=True))


def test_a_limit_takes_the_first_samples(make: Any) -> None:
    assert sum(batch.num_samples for batch in make(rows_per_batch=2, limit=20)) == 20


def test_long_samples_are_counted(make: Any) -> None:
    once = make(rows_per_batch=2, tokens_per_row=40)
    assert once.over_long == 60 - sum(batch.num_samples for batch in once) > 0


def test_too_few_rows_for_the_processes_say_so(make: Any) -> None:
    with pytest.raises(ValueError, match=r"too few for 100 processes.* Lower tokens_per_row"):
        make(rows_per_batch=1, share=Share(0, 100))
    with pytest.raises(ValueError, match=r"0 samples.*fill 0 rows.* Raise tokens_per_row"):
        make(rows_per_batch=1, tokens_per_row=4)
