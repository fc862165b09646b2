"""FSQ, one number at a time."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_eve.models.tokenizers.fsq import FiniteScalarQuantizer
from lit_eve.models.tokenizers.standardize import Standardize


def plain(value: float, level: int) -> tuple[int, float]:
    """Digit and value of one channel, as listing 1 of Mentzer et al. 2023 has it."""
    half_width = (level - 1) * 1.001 / 2
    offset = 0.0 if level % 2 else 0.5
    shift = math.atanh(offset / half_width)
    bounded = math.tanh(value + shift) * half_width - offset
    return round(bounded) + level // 2, round(bounded) / (level // 2)


@given(st.lists(st.floats(-4, 4, width=32), min_size=4, max_size=4))
@settings(max_examples=200, deadline=None)
def test_values_and_codes_equal_the_plain_formula(values: list[float]) -> None:
    levels = [8, 5, 4, 3]
    digits = [plain(value, level) for value, level in zip(values, levels, strict=True)]
    bounded = [math.tanh(v) * (n - 1) for v, n in zip(values, levels, strict=True)]
    if any(abs(abs(b % 1) - 0.5) < 1e-3 for b in bounded):
        return  # too near to a border for float32 to agree
    out = FiniteScalarQuantizer(levels)(torch.tensor(values).view(1, 4, 1, 1))
    assert out.codes is not None
    # Channel 0 is the least significant digit.
    code = digits[0][0] + 8 * (digits[1][0] + 5 * (digits[2][0] + 4 * digits[3][0]))
    if out.codes.item() == code:
        torch.testing.assert_close(
            out.latent.flatten(), torch.tensor([value for _, value in digits])
        )
    else:  # a rounding border between float32 and float64
        assert (
            min(
                abs(plain(v, n)[1] - float(x))
                for v, n, x in zip(values, levels, out.latent.flatten(), strict=True)
            )
            < 1
        )


def test_the_basis_of_8_5_5_5_is_1_8_40_200() -> None:
    quantizer = FiniteScalarQuantizer([8, 5, 5, 5])
    assert quantizer.basis.tolist() == [1, 8, 40, 200]
    assert quantizer.num_codes == 1000


@pytest.mark.parametrize("levels", [[8, 6, 5], [4, 3], [7]])
def test_every_code_comes_back_from_its_own_latent(levels: list[int]) -> None:
    quantizer = FiniteScalarQuantizer(levels)
    codes = torch.arange(math.prod(levels)).view(1, 1, -1)
    latent = quantizer.embed(codes)
    # What tanh maps to the middle of each level; the outermost levels lie where tanh is all but 1.
    digits = latent * (quantizer.levels // 2).view(1, -1, 1, 1)
    half_width = (quantizer.levels - 1).view(1, -1, 1, 1) * 1.001 / 2
    offset = (quantizer.levels % 2 == 0).view(1, -1, 1, 1) * 0.5
    source = torch.atanh((digits + offset) / half_width) - torch.atanh(offset / half_width)
    assert torch.equal(quantizer(source).codes, codes)


def test_the_gradient_is_that_of_the_bound() -> None:
    quantizer = FiniteScalarQuantizer([5])
    z = torch.tensor(0.3).view(1, 1, 1, 1).requires_grad_()
    quantizer(z).latent.sum().backward()
    # d/dz of tanh(z) * 2.002 / 2, rounding passed straight through.
    assert z.grad is not None
    assert z.grad.item() == pytest.approx((1 - math.tanh(0.3) ** 2) * 2.002 / 2, rel=1e-6)


def test_there_is_no_loss() -> None:
    assert FiniteScalarQuantizer([8, 5, 5])(torch.randn(1, 3, 2, 2)).losses == {}


@pytest.mark.parametrize("levels", [[], [8, 1], [5, 2]])
def test_impossible_levels_are_refused(levels: list[int]) -> None:
    with pytest.raises(ValueError, match=r"at least 3 levels.*\[8, 5, 5, 5\].*take LFQ"):
        FiniteScalarQuantizer(levels)


def test_the_first_batch_is_standardized_as_by_a_batch_norm() -> None:
    torch.manual_seed(0)
    layer, tokens = Standardize(4).double(), (torch.randn(60, 4).double() * 3 + 7).requires_grad_()
    wanted = torch.nn.functional.batch_norm(tokens, None, None, training=True, eps=1e-5)
    weights = torch.randn_like(tokens)
    found = layer(tokens)
    torch.testing.assert_close(found, wanted)
    (gradient,) = torch.autograd.grad((found * weights).sum(), tokens)
    (wanted_gradient,) = torch.autograd.grad((wanted * weights).sum(), tokens)
    torch.testing.assert_close(gradient, wanted_gradient)


def test_later_batches_are_standardized_by_averages_and_cannot_move_as_a_whole() -> None:
    torch.manual_seed(0)
    layer = Standardize(4).double()
    layer(torch.randn(60, 4).double())
    tokens = (torch.randn(60, 4).double() * 3 + 7).requires_grad_()
    found = layer(tokens)
    torch.testing.assert_close(found, (tokens - layer.mean) / (layer.variance + 1e-5).sqrt())
    (gradient,) = torch.autograd.grad((found * torch.randn_like(found)).sum(), tokens)
    away = tokens.detach() - tokens.detach().mean(0)
    for direction in (torch.ones_like(away), away):  # shift, stretch
        torch.testing.assert_close(
            (gradient * direction).sum(0), torch.zeros(4).double(), atol=1e-4, rtol=0
        )


def test_evaluation_standardizes_by_averages_that_the_first_batch_sets() -> None:
    torch.manual_seed(0)
    layer, tokens = Standardize(3), torch.randn(50, 3) * 2 - 5
    trained = layer(tokens)
    layer.eval()
    torch.testing.assert_close(layer(tokens), trained)
    torch.testing.assert_close(layer(tokens[:1]), trained[:1])
    layer.train()
    for _ in range(300):
        layer(tokens + 1)
    torch.testing.assert_close(layer.mean, tokens.mean(0) + 1, rtol=1e-4, atol=1e-4)


def test_a_channel_far_outside_uses_all_its_levels_when_standardized() -> None:
    torch.manual_seed(0)
    latent = torch.randn(4, 2, 8, 8) + 6
    plain, standardized = FiniteScalarQuantizer([5, 5]), FiniteScalarQuantizer([5, 5], True)
    used = [len(set(fsq(latent).codes.flatten().tolist())) for fsq in (plain, standardized)]
    assert used == [1, 25]
