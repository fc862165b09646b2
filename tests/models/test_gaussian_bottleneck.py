from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from lit_eve.models.tokenizers.gaussian import GaussianBottleneck


def test_the_kl_is_that_of_two_normal_distributions() -> None:
    torch.manual_seed(0)
    latent = torch.randn(3, 8, 2, 5)
    out = GaussianBottleneck(4, 192)(latent)
    mean, log_variance = latent.double().chunk(2, 1)
    posterior = Normal(mean, (log_variance / 2).exp())
    prior = Normal(torch.zeros_like(mean), torch.ones_like(mean))
    expected = kl_divergence(posterior, prior).sum(1).mean().item()
    assert out.statistics["kl_nats"].item() == pytest.approx(expected, rel=1e-6)
    assert out.losses["kl"].item() == pytest.approx(expected / 192, rel=1e-6)  # beta 1


def test_samples_have_the_posteriors_mean_and_spread() -> None:
    torch.manual_seed(0)
    latent = torch.tensor([0.7, 2 * math.log(0.3)]).view(1, 2, 1, 1).expand(1, 2, 200, 200)
    sample = GaussianBottleneck(1, 192)(latent).latent
    assert float(sample.mean()) == pytest.approx(0.7, abs=0.005)  # three standard errors
    assert float(sample.std()) == pytest.approx(0.3, abs=0.004)


def test_evaluation_takes_the_mean() -> None:
    latent = torch.randn(1, 4, 2, 2)
    assert torch.equal(GaussianBottleneck(2, 192).eval()(latent).latent, latent[:, :2])


def test_absurd_variances_stay_finite() -> None:
    latent = torch.full((1, 2, 1, 1), 1e4)
    assert GaussianBottleneck(1, 192)(latent).losses["kl"].isfinite()


def test_there_are_no_codes() -> None:
    quantizer = GaussianBottleneck(2, 192)
    assert quantizer(torch.randn(1, 4, 2, 2)).codes is None
    assert quantizer.levels_of_codes == ()
    with pytest.raises(ValueError, match="continuous: its latents have no codes"):
        quantizer.embed(torch.zeros(1, 2, 2, dtype=torch.int64))
