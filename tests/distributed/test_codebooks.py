"""Two processes reach the codebook of one process on the joined batch."""

from __future__ import annotations

import pytest
import torch

from lit_eve.models.tokenizers.codebook import Liveliness
from tests.rank_codebooks import Case, entropy_gradient, standardized, train_codebook, usage
from tests.rank_pool import RankPool

CASES = {
    "plain": Case(Liveliness(start="random")),
    "k-means": Case(Liveliness(start="kmeans")),
    "tokens": Case(Liveliness(start="data")),
    "revived": Case(Liveliness(start="random", decay=0.5, revive_below=0.5)),
    "learned": Case(Liveliness(start="kmeans", decay=0.5, revive_below=0.5), book="loss"),
}


# The same sums in another order: measured 1e-6 at most. Unshared statistics differ by 1e-1.
@pytest.mark.parametrize("name", CASES)
def test_two_processes_learn_the_codebook_of_one(name: str, two_ranks: RankPool) -> None:
    alone = train_codebook(CASES[name])
    first, second = two_ranks.run(train_codebook, CASES[name])
    for key, tensor in alone.items():
        assert torch.equal(first[key], second[key]), key
        torch.testing.assert_close(first[key], tensor, rtol=1e-5, atol=1e-5)
    if CASES[name].liveliness.revive_below > 0:
        assert int(alone["replaced"]) > 0


def test_the_entropy_of_the_joint_mean_has_the_gradient_of_one_process(two_ranks: RankPool) -> None:
    gradient, value = entropy_gradient()
    for found, its_value in two_ranks.run(entropy_gradient):
        torch.testing.assert_close(found, gradient)
        torch.testing.assert_close(its_value, value)


def test_channels_are_standardized_by_the_moments_of_the_joined_batch(two_ranks: RankPool) -> None:
    alone = standardized()  # seven tokens: the ranks have four and three
    for found in two_ranks.run(standardized):
        for key, tensor in alone.items():
            torch.testing.assert_close(found[key], tensor, rtol=1e-5, atol=1e-6)


def test_usage_is_counted_over_all_processes(two_ranks: RankPool) -> None:
    alone = usage()
    assert two_ranks.run(usage) == [alone, alone]
