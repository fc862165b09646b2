from __future__ import annotations

import math

import pytest
import torch

from lit_eve.metrics.codebook import CodebookUsage, usage


def values(counts: list[int]) -> dict[str, float]:
    return {name: float(value) for name, value in usage(torch.tensor(counts)).items()}


# The table of ceilings in the literature review of image tokenizers: K (1 - (1 - 1/K)^N).
@pytest.mark.parametrize(
    ("codes", "tokens", "ceiling"),
    [(1024, 1024, 0.632), (8192, 1024, 0.118), (8192, 8192, 0.632), (262_144, 65_536, 0.221)],
)
def test_the_ceiling_is_what_uniform_codes_would_use(
    codes: int, tokens: int, ceiling: float
) -> None:
    counts = torch.zeros(codes, dtype=torch.int64)
    counts[0] = tokens
    assert usage(counts)["ceiling"].item() == pytest.approx(ceiling, abs=5e-4)


def test_uniform_random_codes_reach_their_ceiling() -> None:
    torch.manual_seed(0)
    metric = CodebookUsage(8192)
    for _ in range(8):
        metric.update(torch.randint(8192, (1, 32, 32)))
    found = metric.compute()
    assert found["usage"].item() == pytest.approx(0.632, abs=0.01)
    assert found["usage_of_ceiling"].item() == pytest.approx(1, abs=0.01)
    # With counts of a Poisson distribution of mean 1 the entropy is log K - E[n log n].
    surprise = sum(n * math.log(n) * math.exp(-1) / math.factorial(n) for n in range(2, 20))
    expected = 8192 * math.exp(-surprise)  # 4617
    assert found["perplexity"].item() == pytest.approx(expected, rel=0.02)


# Worked by hand: 2 of 4 codes, frequencies 3/4 and 1/4.
def test_usage_perplexity_and_dead_codes() -> None:
    found = values([3, 0, 1, 0])
    assert found["usage"] == 0.5
    assert found["dead"] == 2
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert found["perplexity"] == pytest.approx(math.exp(entropy))
    assert found["usage_of_ceiling"] == pytest.approx(0.5 / (1 - 0.75**4))


def test_nothing_counted_is_no_number_that_could_mislead() -> None:
    found = values([0, 0, 0])
    assert found["usage"] == found["ceiling"] == found["perplexity"] == 0
    assert found["usage_of_ceiling"] == 0
    assert found["dead"] == 3


def test_counts_add_up_over_batches_and_start_afresh() -> None:
    metric = CodebookUsage(4)
    metric.update(torch.tensor([[0, 1], [1, 3]]))
    metric.update(torch.tensor([1]))
    assert metric.counts.tolist() == [1, 3, 0, 1]
    metric.reset()
    assert metric.counts.tolist() == [0, 0, 0, 0]
