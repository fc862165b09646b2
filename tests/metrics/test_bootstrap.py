"""Intervals of scores: as wide as theory says, wider where questions hang together."""

from __future__ import annotations

import numpy as np
import pytest

from lit_eve.metrics.bootstrap import estimates
from lit_eve.metrics.choices import YesNo
from lit_eve.metrics.words import ExactMatch


def answers(count: int, right: float, seed: int = 0) -> list[tuple[float, ...]]:
    chance = np.random.default_rng(seed)
    return [(1.0, float(chance.random() < right)) for _ in range(count)]


def test_an_interval_of_a_share_is_as_wide_as_the_normal_one() -> None:
    points = answers(400, 0.3)
    found = estimates(ExactMatch(), points, [str(n) for n in range(400)], [""] * 400)[0]["accuracy"]
    share = sum(p[1] for p in points) / 400
    half = 1.96 * (share * (1 - share) / 400) ** 0.5
    assert found.value == pytest.approx(share)
    # A thousand resamples know a 97.5 % quantile to about 5 % of its distance from the middle.
    assert found.low == pytest.approx(share - half, abs=0.15 * half)
    assert found.high == pytest.approx(share + half, abs=0.15 * half)


def test_ten_answers_alike_are_one_answer() -> None:
    points = answers(60, 0.5)
    names = [str(n) for n in range(60)]
    once = estimates(ExactMatch(), points, names, [""] * 60)[0]["accuracy"]
    copied = estimates(ExactMatch(), points * 10, names * 10, [""] * 600)[0]["accuracy"]
    assert copied == once
    apart = estimates(ExactMatch(), points * 10, [str(n) for n in range(600)], [""] * 600)
    assert apart[0]["accuracy"].high - apart[0]["accuracy"].low < (once.high - once.low) / 2


def test_categories_have_scores_of_their_own_and_one_seed_repeats_them() -> None:
    points = answers(40, 0.9) + answers(40, 0.1, seed=1)
    names, kinds = [str(n) for n in range(80)], ["good"] * 40 + ["bad"] * 40
    overall, parts = estimates(ExactMatch(), points, names, kinds, seed=3)
    assert overall["accuracy"].value == pytest.approx(
        (parts["good"]["accuracy"].value + parts["bad"]["accuracy"].value) / 2
    )
    assert parts["good"]["accuracy"].low > parts["bad"]["accuracy"].high
    assert (overall, parts) == estimates(ExactMatch(), points, names, kinds, seed=3)
    assert overall != estimates(ExactMatch(), points, names, kinds, seed=4)[0]


def test_scores_that_are_no_means_have_intervals_too() -> None:
    chance = np.random.default_rng(5)
    points = [tuple(np.eye(4)[cell]) for cell in chance.choice(4, 200, p=[0.4, 0.1, 0.4, 0.1])]
    found = estimates(YesNo(), points, [str(n) for n in range(200)], [""] * 200)[0]["f1"]
    assert found.low < found.value < found.high
    assert found.high - found.low < 0.2


def test_a_single_question_has_an_interval_of_no_width() -> None:
    found = estimates(ExactMatch(), [(1.0, 1.0)], ["a"], [""])[0]["accuracy"]
    assert (found.value, found.low, found.high) == (1, 1, 1)
