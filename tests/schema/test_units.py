from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from lit_eve.schema.base import MistakeError
from lit_eve.schema.units import Budget, Span, parse_count, parse_steps


@pytest.mark.parametrize(
    ("text", "number"),
    [("16k", 16_000), ("1.2M", 1_200_000), ("2B", 2_000_000_000), (7, 7), ("1e3", 1_000), (5.0, 5)],
)
def test_a_multiplier_counts_thousands_millions_and_billions(text: object, number: int) -> None:
    assert parse_count(text) == number


@pytest.mark.parametrize(
    ("value", "advice"),
    [
        ("16q", "Write k for thousand"),
        ("16K", "Write k for thousand"),
        ("many", "Write 16000, 16k or 1.2M"),
        ("1.0001k", "Count in whole things"),
        (2.5, "Count in whole things"),
        (True, "Write 16000, 16k or 1.2M"),
        ([1], "Write 16000, 16k or 1.2M"),
    ],
)
def test_no_count_is_told_how_to_write_one(value: object, advice: str) -> None:
    with pytest.raises(MistakeError) as caught:
        parse_count(value)
    assert advice in caught.value.suggestion


@pytest.mark.parametrize(
    ("text", "steps"), [("200 steps", 200), ("1k steps", 1_000), (3, 3), ("1 step", 1)]
)
def test_steps_may_name_their_unit(text: object, steps: int) -> None:
    assert parse_steps(text) == steps


def test_another_unit_than_steps_is_refused() -> None:
    with pytest.raises(MistakeError, match="counts 'samples'") as caught:
        parse_steps("200 samples")
    assert caught.value.suggestion == "Write 200 steps."


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("16k samples", Budget(16_000, "samples")),
        ("1 epoch", Budget(1, "epochs")),
        ("0.5 epochs", Budget(0.5, "epochs")),
        ("2M tokens", Budget(2_000_000, "tokens")),
        ("1 step", Budget(1, "steps")),
    ],
)
def test_a_budget_is_an_amount_and_a_unit(text: str, budget: Budget) -> None:
    assert Budget.parse(text) == budget


@pytest.mark.parametrize(
    ("value", "advice"),
    [
        (16_000, "one of samples, tokens, steps, epochs"),
        ("16k", "one of samples, tokens, steps, epochs"),
        ("16k apples", "Units: samples, tokens, steps, epochs"),
        ("0 steps", "Give an amount above 0"),
        ("k samples", "Write 16000, 16k or 1.2M"),
    ],
)
def test_no_budget_is_told_the_units(value: object, advice: str) -> None:
    with pytest.raises(MistakeError) as caught:
        Budget.parse(value)
    assert advice in caught.value.suggestion


@pytest.mark.parametrize(
    ("text", "total", "steps"),
    [
        ("3%", 1_000, 30),
        ("12.5%", 80, 10),
        ("200", 80, 200),
        (0, 80, 0),
        ("150k steps", 1, 150_000),
    ],
)
def test_a_span_is_a_share_of_the_stage_or_steps(text: object, total: int, steps: int) -> None:
    assert Span.parse(text).steps(total) == steps


@pytest.mark.parametrize(
    ("value", "advice"),
    [
        (0.03, "write 3%"),
        ("101%", "Write 3% or 12.5%"),
        ("x%", "Write 3% or 12.5%"),
        ("3 epochs", "Write a share of the stage (3%) or steps"),
        ("soon", "Write a share of the stage (3%) or steps"),
    ],
)
def test_no_span_is_told_both_ways_to_write_one(value: object, advice: str) -> None:
    with pytest.raises(MistakeError) as caught:
        Span.parse(value)
    assert advice in caught.value.suggestion


counts = st.integers(min_value=1, max_value=10**12)


@given(st.builds(Budget, counts, st.sampled_from(["samples", "tokens", "steps", "epochs"])))
def test_a_written_budget_reads_back(budget: Budget) -> None:
    assert Budget.parse(str(budget)) == budget


@given(st.one_of(counts.map(str), st.floats(0, 100, allow_subnormal=False).map("{:f}%".format)))
def test_a_written_span_reads_back(text: str) -> None:
    span = Span.parse(text)
    assert Span.parse(str(span)) == span


@given(st.from_regex(r"\A[0-9]{1,6}[kMB]?\Z"))
def test_editors_accept_every_count_that_is_read(text: str) -> None:
    parse_count(text)
    patterns = [
        option["pattern"]
        for option in TypeAdapter(Budget).json_schema().get("anyOf", [])
        if "pattern" in option
    ] or [TypeAdapter(Budget).json_schema()["pattern"]]
    assert re.search(patterns[0], f"{text} samples")
