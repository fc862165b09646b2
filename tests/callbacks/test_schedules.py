from __future__ import annotations

import math
import pickle
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lit_eve_callbacks.schedules import (
    CURVES,
    constant,
    cosine,
    curve,
    exponential,
    linear,
    quarter_cosine,
    schedule,
    warmup,
)


# Worked by hand from end + (start - end) * (1 + cos(pi * step / steps)) / 2.
@pytest.mark.parametrize(
    ("step", "value"),
    [(0, 1.0), (25, 0.862706), (50, 0.53125), (75, 0.199794), (100, 0.0625), (500, 0.0625)],
)
def test_cosine_ends_at_a_sixteenth_and_stays(step: int, value: float) -> None:
    assert cosine(step, start=1.0, end=1 / 16, steps=100) == pytest.approx(value, abs=1e-6)


# start + (end - start) * (1 - cos(pi / 2 * step / steps)); 1 - cos(pi / 4) = 0.29289.
@pytest.mark.parametrize(
    ("step", "value"), [(0, 1.0), (50, 0.725413), (100, 0.0625), (101, 0.0625)]
)
def test_quarter_cosine_leaves_its_start_slowly(step: int, value: float) -> None:
    assert quarter_cosine(step, start=1.0, end=1 / 16, steps=100) == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize(("step", "value"), [(0, 0.0), (1, 1.65), (3, 4.95), (4, 6.6), (9, 6.6)])
def test_linear_rises_in_equal_parts(step: int, value: float) -> None:
    assert linear(step, start=0.0, end=6.6, steps=4) == pytest.approx(value)


@pytest.mark.parametrize(("step", "value"), [(0, 8.0), (1, 4.0), (2, 2.0), (3, 1.0), (7, 1.0)])
def test_exponential_halves_every_step(step: int, value: float) -> None:
    assert exponential(step, start=8.0, end=1.0, steps=3) == pytest.approx(value)


def test_constant_stays() -> None:
    assert [constant(step, start=0.3, end=0.3, steps=5) for step in (0, 5, 50)] == [0.3] * 3


@pytest.mark.parametrize(("step", "value"), [(0, 0.25), (1, 0.5), (2, 0.75), (3, 1.0), (99, 1.0)])
def test_warmup_over_three_steps_moves_at_once_and_is_full_at_the_third(
    step: int, value: float
) -> None:
    assert warmup(step, steps=3) == value


def test_no_warmup_is_full_at_once() -> None:
    assert warmup(0, steps=0) == 1.0


@pytest.mark.parametrize("name", sorted(set(CURVES) - {"constant"}))
@given(
    start=st.floats(1e-6, 1e3),
    end=st.floats(1e-6, 1e3),
    steps=st.integers(1, 10**7),
    step=st.integers(0, 2 * 10**7),
)
def test_every_curve_starts_ends_and_stays_between(
    name: str, start: float, end: float, steps: int, step: int
) -> None:
    shape = CURVES[name]
    low, high = sorted((start, end))
    assert shape(0, start=start, end=end, steps=steps) == pytest.approx(start)
    assert shape(steps + step, start=start, end=end, steps=steps) == pytest.approx(end)
    here = shape(step, start=start, end=end, steps=steps)
    assert low - 1e-9 * high <= here <= high * (1 + 1e-9)


@given(st.sampled_from(sorted(set(CURVES) - {"constant"})), st.integers(0, 998))
def test_every_curve_falls_without_a_bump(name: str, step: int) -> None:
    shape = CURVES[name]
    now = shape(step, start=2.0, end=0.5, steps=1000)
    assert shape(step + 1, start=2.0, end=0.5, steps=1000) < now


def test_schedule_multiplies_the_curve_by_its_warmup() -> None:
    rate = schedule("cosine", start=2.0, end=0.0, steps=10, warmup_steps=3)
    expected = [(1 + math.cos(math.pi * step / 10)) * min(1, (step + 1) / 4) for step in range(11)]
    assert [rate(step) for step in range(11)] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("call", "advice"),
    [
        (lambda: curve("cosin"), "Choose one of constant, linear, cosine"),
        (lambda: linear(-1, start=0, end=1, steps=5), "steps count from 0"),
        (lambda: linear(1, start=0, end=1, steps=0), "positive number of steps"),
        (lambda: exponential(1, start=1, end=0, steps=5), "two positive numbers"),
        (lambda: constant(1, start=1, end=0, steps=5), "Leave the end out"),
        (lambda: warmup(0, steps=-1), "neither may be negative"),
        (lambda: schedule("exponential", start=0, end=1, steps=5), "two positive numbers"),
        (lambda: schedule("linear", start=0, end=1, steps=5, warmup_steps=-3), "negative"),
    ],
)
def test_impossible_numbers_are_refused_with_advice(call: object, advice: str) -> None:
    assert callable(call)
    with pytest.raises(ValueError, match=advice):
        call()


def test_curves_can_travel_to_another_process() -> None:
    assert pickle.loads(pickle.dumps(cosine)) is cosine


def test_schedules_import_neither_torch_nor_lightning() -> None:
    code = (
        "import sys, lit_eve_callbacks.schedules;"
        "sys.exit(any(name in sys.modules for name in ('torch', 'lightning', 'numpy')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
