from __future__ import annotations

import json
from collections import Counter
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_eve_data.loading.working import Share
from lit_eve_data.packing.fitting import best_fit, best_fit_decreasing
from lit_eve_data.packing.orders import EpochOrder, Runs
from lit_eve_data.packing.plan import Cursor, Pack, PackingPlan, SourceLengths


def source(
    name: str, count: int, *, mean: int = 40, weight: float = 1.0, seed: int = 0
) -> SourceLengths:
    random = np.random.RandomState(seed)
    tokens = np.clip(random.normal(mean, mean / 3, count).round(), 5, None).astype(np.int64)
    images = np.arange(count) % 3
    return SourceLengths(name, weight, tokens, tokens // 3, images, np.arange(count) // 100)


def plan(*sources: SourceLengths, row: int = 512, batch: int = 100, seed: int = 0) -> PackingPlan:
    return PackingPlan(sources or (source("a", 700),), row, batch, seed)


def steps(packing: PackingPlan, count: int, start: Cursor | None = None) -> list[list[Pack]]:
    return [rows for rows, _ in islice(packing.steps(start or packing.start), count)]


def whole(packing: PackingPlan, window: int) -> list[Pack]:
    """The rows of all lanes of a window of the only dataset."""
    lanes = packing._window(window, (window * packing._window_size,))
    return [pack for lane in lanes for pack in lane]


def by_search(lengths: list[int], room: int) -> list[int]:
    """Room left in every row, from the definition: the fullest row that still has the room."""
    left: list[int] = []
    for length in sorted(lengths, reverse=True):
        fits = [space for space in left if space >= length]
        if fits:
            left[left.index(min(fits))] -= length
        else:
            left.append(room - length)
    return left


@given(st.lists(st.integers(0, 64), min_size=1, max_size=80))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_rows_are_filled_as_best_fit_decreasing_is_defined(lengths: list[int]) -> None:
    rows = best_fit_decreasing(np.array(lengths, np.int64), 64)
    assert sorted(place for row in rows for place in row) == list(range(len(lengths)))
    left = [64 - sum(lengths[place] for place in row) for row in rows]
    assert min(left) >= 0
    assert sorted(left) == sorted(by_search(lengths, 64))


def test_every_step_has_the_same_number_of_rows_that_fit() -> None:
    packing = plan()
    tokens = packing.sources[0].tokens
    for rows in steps(packing, 30):
        assert len(rows) == packing.rows_per_step
        assert max(sum(tokens[index] for _, index in row) for row in rows) <= 512


def test_a_step_has_about_the_samples_asked_for() -> None:
    packing = plan(batch=100)
    counts = [sum(map(len, rows)) for rows in steps(packing, 50)]
    assert np.mean(counts) == pytest.approx(packing.samples_per_step, rel=0.02)
    assert np.mean(counts) == pytest.approx(100, abs=packing.samples_per_row / 2 + 1)


# Steps do not respect the borders of epochs, so they are counted on the windows: of one dataset of
# 700 samples, each is an epoch.
def test_every_sample_comes_once_an_epoch() -> None:
    packing = plan(batch=50)
    drawn = Counter[int]()
    for window in range(7):
        for pack in whole(packing, window):
            drawn.update(index for _, index in pack)
    assert set(drawn) == set(range(700))
    assert set(drawn.values()) == {7}


def test_nothing_is_lost_or_repeated_between_windows() -> None:
    packing = plan(source("a", 9_000), batch=64)
    used = Counter[tuple[int, int]]()
    for rows, cursor in packing.steps(packing.start):
        used.update(sample for row in rows for sample in row)
        if cursor.window == 3:
            break
    windows = [sample for w in range(3) for row in whole(packing, w) for sample in row]
    assert max(used.values()) == 1
    assert len(set(windows) - set(used)) == 0


@given(stop=st.integers(0, 40), batch=st.sampled_from([8, 100, 900]))
@settings(max_examples=12, deadline=None, derandomize=True)
def test_a_cursor_goes_on_exactly_where_it_was_taken(stop: int, batch: int) -> None:
    sources = (source("a", 700), source("b", 90, weight=0.3, seed=1))
    packing = plan(*sources, batch=batch)
    whole = list(islice(packing.steps(packing.start), stop + 5))
    cursor = whole[stop - 1][1] if stop else packing.start
    state = json.loads(json.dumps(cursor.state()))
    fresh = plan(*sources, batch=batch)
    assert list(islice(fresh.steps(fresh.cursor(state)), 5)) == whole[stop:]
    assert len(json.dumps(state)) < 120


def test_a_mixture_gives_every_dataset_its_share() -> None:
    packing = plan(source("a", 700, weight=3.0), source("b", 5_000, weight=1.0, seed=1), batch=100)
    counts = Counter(s for rows in steps(packing, 200) for row in rows for s, _ in row)
    total = counts.total()
    assert counts[0] / total == pytest.approx(0.75, abs=0.01)  # sd of 20,000 draws 0.003
    *_, (_, cursor) = islice(packing.steps(packing.start), 200)
    given, asked = packing.shares(cursor)["a"]
    assert given == pytest.approx(0.75, abs=0.01)
    assert asked == 0.75
    assert packing.shares(packing.start) == {"a": (0.0, 0.75), "b": (0.0, 0.25)}


def test_a_dataset_that_runs_out_starts_over_alone() -> None:
    packing = plan(source("a", 50), source("b", 100_000, seed=1), batch=100)
    packs = [row for rows in steps(packing, 100) for row in rows]
    counts = Counter(sample for row in packs for sample in row)
    small = [times for (number, _), times in counts.items() if number == 0]
    assert len(small) == 50
    assert max(small) - min(small) <= 4  # rows of the running window that are not handed out yet
    assert max(times for (number, _), times in counts.items() if number == 1) == 1
    assert np.mean([len(set(row)) / len(row) for row in packs]) > 0.9  # few copies in one row


def test_another_dataset_in_the_mixture_does_not_change_the_order_of_the_first() -> None:
    alone, both = plan(source("a", 700)), plan(source("b", 90, seed=1), source("a", 700))
    (one,), (other,) = alone._orders[0], both._orders[1]
    assert np.array_equal(one.take(300, 900), other.take(300, 900))
    assert not np.array_equal(one.take(0, 700), one.take(700, 700))


def test_samples_longer_than_a_row_are_counted_and_left_out() -> None:
    lengths = source("a", 700)
    lengths.tokens[:30] = 513
    packing = plan(lengths)
    assert packing.over_long == {"a": 30}
    assert packing.samples_per_epoch == 670
    assert min(i for rows in steps(packing, 40) for row in rows for _, i in row) == 30


@pytest.mark.parametrize(("mean", "limit"), [(64, 0.02), (40, 0.02), (128, 0.08)])
def test_little_is_padding(mean: int, limit: float) -> None:
    packing = plan(source("a", 20_000, mean=mean))
    rows = [row for step in steps(packing, 100) for row in step]
    used = sum(packing.sources[0].tokens[index] for row in rows for _, index in row)
    padding = 1 - used / (len(rows) * 512)
    assert padding < limit  # measured 0.8 %, 0.6 % and 2.3 %
    assert packing.padding == pytest.approx(padding, abs=0.005)


def test_reading_stays_within_a_few_chunks() -> None:
    chunk = np.repeat(np.arange(50), 500)
    order = EpochOrder(Runs.of(chunk), (0,)).take(0, 25_000)
    assert sorted(order.tolist()) == list(range(25_000))
    for start in range(0, 25_000, 2_000):
        assert len(set(chunk[order[start : start + 2_000]].tolist())) <= 4


@given(st.integers(0, 5_999), st.integers(0, 3_000), st.integers(0, 3))
@settings(max_examples=25, deadline=None, derandomize=True)
def test_any_place_of_an_order_is_reached_without_what_lies_before(
    position: int, count: int, epoch: int
) -> None:
    runs = Runs.of(np.arange(6_000) // 100)
    straight = EpochOrder(runs, (1,)).take(epoch * 6_000, 12_000)
    again = EpochOrder(runs, (1,)).take(epoch * 6_000 + position, count)
    assert np.array_equal(again, straight[position : position + count])
    for part in (straight[:6_000], straight[6_000:]):
        assert np.array_equal(np.sort(part), np.arange(6_000))


@given(st.lists(st.integers(1, 30), min_size=8, max_size=40), st.sampled_from([1, 2, 4, 8]))
@settings(max_examples=50, deadline=None, derandomize=True)
def test_shares_are_equal_to_one_sample_and_leave_nothing_out(sizes: list[int], hands: int) -> None:
    runs = Runs.of(np.repeat(np.arange(len(sizes)), sizes))
    shares = [EpochOrder(r, (0,)).take(0, int(r.sizes.sum())) for r in _dealt(runs, hands)]
    assert sorted(place for share in shares for place in share) == list(range(sum(sizes)))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def _dealt(runs: Runs, hands: int) -> list[Runs]:
    return runs.dealt(hands, np.random.RandomState(0))


def test_windows_side_by_side_are_packed_as_each_alone() -> None:
    lengths = np.random.default_rng(0).integers(0, 65, (5, 70))
    orders, rows = best_fit(lengths, 64)
    for number, alone in enumerate(lengths):
        (order,), (row,) = best_fit(alone[None], 64)
        assert np.array_equal(orders[number], order)
        assert np.array_equal(rows[number], row)


def test_rows_too_long_for_short_numbers_are_packed_alike() -> None:
    lengths = np.random.default_rng(0).integers(1, 9_000, (1, 60))
    one, other = best_fit(lengths, 32_000), best_fit(lengths * 4, 128_000)
    assert np.array_equal(one[1], other[1])


def large() -> PackingPlan:
    """Of 64,000 samples in chunks of 100: eight lanes."""
    tokens = np.random.default_rng(0).integers(40, 120, 64_000)
    ones = np.ones(64_000, np.int64)
    lengths = SourceLengths("a", 1.0, tokens, ones, ones, np.arange(64_000) // 100)
    packing = PackingPlan([lengths], 512, 104, 0)
    assert (packing.lanes, packing.rows_per_step) == (8, 16)
    return packing


def test_lanes_together_give_every_sample_once_an_epoch() -> None:
    packing = large()
    drawn = [sample for window in range(4) for pack in whole(packing, window) for sample in pack]
    assert len(drawn) == len(set(drawn)) == 64_000


@pytest.mark.parametrize(("nodes", "fetched"), [(2, 1.02), (4, 1.04), (16, 2.1)])
def test_a_machine_reads_only_the_chunks_of_its_lanes(nodes: int, fetched: float) -> None:
    packing = large()
    chunks: list[set[int]] = [set() for _ in range(nodes)]
    for rows, _ in islice(packing.steps(packing.start), 60_000 // 104):
        for node in range(nodes):
            (mine,) = Share(node, nodes).of(rows)
            indices = [index for pack in mine for _, index in pack]
            chunks[node].update(packing.sources[0].chunk[indices].tolist())
    assert 0.9 < sum(map(len, chunks)) / 640 < fetched


def test_a_cursor_goes_on_in_every_lane() -> None:
    packing = large()
    steps = list(islice(packing.steps(packing.start), 300))
    for stop, window in ((1, 0), (155, 0), (156, 1), (157, 1), (299, 1)):
        state = json.loads(json.dumps(steps[stop - 1][1].state()))
        assert steps[stop - 1][1].window == window
        assert len(json.dumps(state)) < 160
        assert next(large().steps(large().cursor(state))) == steps[stop]


def test_shares_of_a_mixture_are_counted_over_all_lanes() -> None:
    ones = np.ones(40_000, np.int64)
    tokens, chunk = np.full(40_000, 60), np.arange(40_000) // 100
    sources = [SourceLengths(name, 1.0, tokens, ones, ones, chunk) for name in "ab"]
    packing = PackingPlan(sources, 512, 128, 0)
    assert packing.lanes > 1
    *_, (_, cursor) = islice(packing.steps(packing.start), 200)
    counts = Counter(s for rows in steps(packing, 200) for row in rows for s, _ in row)
    assert packing.shares(cursor)["a"] == (counts[0] / counts.total(), 0.5)


def test_the_heaviest_rows_are_those_with_least_to_learn() -> None:
    packing = plan()
    source = packing.sources[0]

    def read_only(row: Pack) -> int:
        return sum(int(source.tokens[index] - source.supervised[index]) for _, index in row)

    expected = sorted(map(read_only, whole(packing, 0)), reverse=True)
    found = [read_only(row) for row in packing.heaviest(len(expected) + 2)]
    assert found == [*expected, *expected[:2]]


def test_the_seed_changes_everything_and_nothing_else_does() -> None:
    assert steps(plan(seed=1), 5) == steps(plan(seed=1), 5)
    assert steps(plan(seed=1), 5) != steps(plan(seed=2), 5)
    assert plan(seed=1).fingerprint() == plan(seed=1).fingerprint()
    changed = [
        plan(seed=2),
        plan(row=500),
        plan(batch=101),
        plan(source("b", 700)),
        plan(source("a", 701)),
        plan(source("a", 700, weight=2.0)),
        plan(source("a", 700, seed=1)),
    ]
    assert len({packing.fingerprint() for packing in (plan(seed=1), *changed)}) == 8


# Printed by the second version; NumPy freezes the streams of `RandomState`, so a run prepared today
# goes on with the same rows on another machine and in another year.
def test_the_plan_of_seed_zero_is_this_one() -> None:
    rows = [[index for _, index in row] for row in steps(plan(row=128), 1)[0][:4]]
    assert rows == [[203, 239, 564], [546, 677, 692], [44, 464, 460, 19], [691, 6, 306]]


def test_what_cannot_be_planned_says_why() -> None:
    long = SourceLengths("a", 1.0, np.array([600]), *(np.array([n]) for n in (1, 1, 0)))
    with pytest.raises(ValueError, match=r"row of 512 tokens .*shortest has 600.*raise"):
        plan(long)
    none = np.zeros(0, np.int64)
    with pytest.raises(ValueError, match="nothing to draw"):
        plan(SourceLengths("a", 1.0, none, none, none, none))
    with pytest.raises(ValueError, match="weight above zero"):
        plan(source("a", 10, weight=0.0))


def test_supervised_tokens_and_images_of_a_step_are_known() -> None:
    packing = plan()
    rows = steps(packing, 1)[0]
    source, indices = packing.sources[0], [index for row in rows for _, index in row]
    share = packing.share(rows, 4)
    assert share.labels == sum(source.supervised[index] for index in indices) / 4
    assert share.images == sum(source.images[index] for index in indices) / 4


def test_realised_shares_count_the_rows_that_were_handed_out() -> None:
    packing = plan(source("a", 400, weight=2.0), source("b", 400, weight=1.0, seed=1), batch=30)
    counts = np.zeros(2)
    for rows, cursor in islice(packing.steps(packing.start), 90):  # several windows, with carries
        for pack in rows:
            for number, _ in pack:
                counts[number] += 1
        given = [share for share, _ in packing.shares(cursor).values()]
        assert given == pytest.approx((counts / counts.sum()).tolist())
    assert cursor.window > 2
