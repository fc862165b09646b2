"""Likelihoods against the distributions they are of."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Laplace, SigmoidTransform, TransformedDistribution

from lit_eve.losses.likelihood import absolute, logit_laplace, squared


def outputs(mean: Tensor, log_scale: Tensor) -> Tensor:
    return torch.cat([mean, log_scale], dim=1)


def random_case(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(2, 3, 4, 5, generator=generator, dtype=torch.float64) * 0.8 + 0.1
    mean = torch.randn(2, 3, 4, 5, generator=generator, dtype=torch.float64) * 2
    log_scale = torch.randn(2, 3, 4, 5, generator=generator, dtype=torch.float64) * 3
    return x.to(dtype), mean.to(dtype), log_scale.to(dtype)


def test_logit_laplace_is_a_laplace_through_a_sigmoid() -> None:
    x, mean, log_scale = random_case()
    density = TransformedDistribution(Laplace(mean, log_scale.exp()), [SigmoidTransform()])
    found = logit_laplace(outputs(mean, log_scale), x)
    expected = -density.log_prob(x)  # type: ignore[no-untyped-call]
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("mean", "log_scale"), [(0.0, 0.0), (1.3, -0.7), (-2.0, 0.5)])
def test_the_density_integrates_to_1(mean: float, log_scale: float) -> None:
    # Over y = logit x, where the integrand is smooth but for one kink: dx = x (1 - x) dy.
    y = torch.linspace(-40, 40, 800_001, dtype=torch.float64).view(1, 1, -1, 1)
    x = torch.sigmoid(y)
    inside = (x > 0) & (x < 1)
    shape = y.expand(1, 3, -1, 1)
    nll = logit_laplace(
        outputs(torch.full_like(shape, mean), torch.full_like(shape, log_scale)),
        x.expand(1, 3, -1, 1).clamp(1e-17, 1 - 1e-16),
    )[:, :1]
    mass = torch.where(inside, torch.exp(-nll) * x * (1 - x), 0).sum() * 1e-4
    assert float(mass) == pytest.approx(1, abs=1e-4)


def test_gradients_are_those_of_the_paper() -> None:
    x, mean, log_scale = random_case()
    mean.requires_grad_()
    log_scale.requires_grad_()
    logit_laplace(outputs(mean, log_scale), x).sum().backward()  # type: ignore[no-untyped-call]
    difference, scale = torch.logit(x) - mean.detach(), log_scale.detach().exp()
    torch.testing.assert_close(mean.grad, -difference.sign() / scale)
    torch.testing.assert_close(log_scale.grad, 1 - difference.abs() / scale)


def test_a_least_scale_is_added_to_b_and_leaves_a_gradient_below_it() -> None:
    x, mean, log_scale = random_case()
    widened = torch.log(log_scale.exp() + 0.37)
    expected = logit_laplace(outputs(mean, widened), x)
    torch.testing.assert_close(logit_laplace(outputs(mean, log_scale), x, 0.37), expected)
    far_below = torch.full((1, 3, 1, 1), -9.0, dtype=torch.float64, requires_grad=True)
    wrong = logit_laplace(
        outputs(torch.ones_like(far_below) * 5, far_below), x[:1, :, :1, :1], 0.37
    )
    wrong.sum().backward()  # type: ignore[no-untyped-call]
    assert far_below.grad is not None
    assert bool((far_below.grad < 0).all())


# log 2 + log b + log x (1 - x) with x = 1/2, b = 1, mean = 0: log 2 - log 4.
def test_a_perfect_guess_of_the_middle_has_minus_log_2_nats() -> None:
    nll = logit_laplace(torch.zeros(1, 6, 1, 1), torch.full((1, 3, 1, 1), 0.5))
    assert nll[0, 0].item() == pytest.approx(-math.log(2))


def test_half_precision_outputs_are_judged_in_float32() -> None:
    x, mean, log_scale = random_case(torch.float32)
    half = outputs(mean, log_scale / 3).to(torch.bfloat16)
    nll = logit_laplace(half, x)
    assert nll.dtype == torch.float32
    torch.testing.assert_close(nll, logit_laplace(half.float(), x))


def test_absolute_and_squared_are_per_value() -> None:
    found, target = torch.tensor([1.0, -2.0]), torch.tensor([0.5, 1.0])
    assert absolute(found, target).tolist() == [0.5, 3.0]
    assert squared(found, target).tolist() == [0.25, 9.0]
    assert absolute(found.to(torch.float16), target).dtype == torch.float32
