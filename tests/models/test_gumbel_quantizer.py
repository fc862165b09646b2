"""The relaxed codebook against plain autograd on an explicit softmax."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lit_eve.models.tokenizers.gumbel import GumbelQuantizer, gumbel_mixture
from lit_eve.models.tokenizers.noise import gumbel_noise


def numbers(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("temperature", [1.0, 0.5, 1 / 16])
@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("most", [1, 2**20])
def test_mixture_and_gradients_equal_an_explicit_softmax(
    temperature: float, hard: bool, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lit_eve.models.tokenizers.gumbel.MAX_SCORES", most)  # a row, or all rows
    scores, codebook = numbers(9, 7).requires_grad_(), numbers(7, 3, seed=1).requires_grad_()
    noise = gumbel_of(torch.rand(9, 7, generator=torch.Generator().manual_seed(2)).double())
    probe, kl_probe = numbers(9, 3, seed=3), numbers(9, seed=4)

    soft = torch.softmax((scores + noise) / temperature, 1)
    one_hot = F.one_hot((scores + noise).argmax(1), 7).double()
    weights = one_hot + soft - soft.detach() if hard else soft
    posterior = torch.softmax(scores, 1)
    kl = (posterior * (posterior.log() + math.log(7))).sum(1)
    expected = torch.autograd.grad(
        ((weights @ codebook) * probe).sum() + (kl * kl_probe).sum(), (scores, codebook)
    )

    out = gumbel_mixture(
        scores, codebook, torch.tensor(temperature).double(), lambda r: noise[r].clone(), hard
    )
    found = torch.autograd.grad(
        (out.vectors * probe).sum() + (out.kl * kl_probe).sum(), (scores, codebook)
    )
    torch.testing.assert_close(out.vectors, weights @ codebook, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(out.kl, kl, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(out.best_probability, posterior.max(1).values)
    assert torch.equal(out.codes, scores.argmax(1))
    # Measured at a temperature of 1/16: 4e-14.
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-12)


def gumbel_of(uniform: Tensor) -> Tensor:
    return -torch.log(-torch.log(uniform))


def test_kl_is_0_for_uniform_scores_and_log_k_for_a_certain_code() -> None:
    quantizer = GumbelQuantizer(8192, 4, 192)
    quantizer.kl_weight.fill_(6.6)
    uniform = quantizer(torch.zeros(1, 8192, 1, 2))
    assert uniform.statistics["kl_nats"].item() == pytest.approx(0, abs=1e-5)
    certain = torch.zeros(1, 8192, 1, 2)
    certain[:, 17] = 1e4
    out = quantizer(certain)
    assert out.statistics["kl_nats"].item() == pytest.approx(math.log(8192))  # 9.0109
    # 6.6 / 192 * log 8192, worked by hand.
    assert out.losses["kl"].item() == pytest.approx(0.30975, abs=1e-5)


def test_the_kl_ignores_temperature_and_noise() -> None:
    quantizer = GumbelQuantizer(16, 4, 192)
    scores = numbers(2, 16, 3, 3, dtype=torch.float32)
    first = quantizer(scores).statistics["kl_nats"]
    quantizer.temperature.fill_(0.1)
    assert torch.equal(quantizer(scores).statistics["kl_nats"], first)
    torch.testing.assert_close(quantizer.eval()(scores).statistics["kl_nats"], first)


def test_training_draws_anew_and_evaluation_takes_the_best_code() -> None:
    torch.manual_seed(0)
    quantizer = GumbelQuantizer(16, 4, 192)
    scores = numbers(1, 16, 3, 3, dtype=torch.float32)
    assert not torch.equal(quantizer(scores).latent, quantizer(scores).latent)
    quantizer.eval()
    out = quantizer(scores)
    assert torch.equal(out.latent, quantizer(scores).latent)
    assert out.codes is not None
    assert torch.equal(out.codes, scores.argmax(1))
    assert torch.equal(out.latent, quantizer.embed(out.codes))
    assert not torch.equal(quantizer.relax(scores), out.latent)


def test_a_low_temperature_mixes_almost_nothing() -> None:
    torch.manual_seed(0)
    quantizer = GumbelQuantizer(16, 16, 192)
    with torch.no_grad():
        quantizer.codebook.copy_(torch.eye(16))
    quantizer.temperature.fill_(1e-4)
    latent = quantizer(numbers(4, 16, 3, 3, dtype=torch.float32)).latent.detach()
    assert float(latent.max(1).values.min()) > 0.99


def test_straight_through_hands_out_whole_codes() -> None:
    torch.manual_seed(0)
    quantizer = GumbelQuantizer(16, 4, 192, "straight_through")
    out = quantizer(numbers(2, 16, 3, 3, dtype=torch.float32))
    cells = out.latent.movedim(1, -1).flatten(0, 2)
    assert (cells[:, None] == quantizer.codebook[None]).all(-1).any(1).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_noise_has_the_distribution_of_gumbel(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    source = gumbel_noise(512, 1024, 100, torch.zeros(0, dtype=dtype))
    starts = range(0, 512, 100)
    drawn = torch.cat([source(slice(s, min(s + 100, 512))).clone().flatten() for s in starts])
    assert drawn.numel() == 512 * 1024
    # Kolmogorov-Smirnov: the largest distance of the distribution functions, below 1.63 / sqrt(n)
    # with probability 0.99.
    ordered = drawn.double().sort().values
    expected = torch.exp(-torch.exp(-ordered))
    steps = torch.arange(1, len(ordered) + 1) / len(ordered)
    assert float((steps - expected).abs().max()) < 1.63 / math.sqrt(len(ordered))
    # Mean: Euler's constant; variance: pi^2 / 6. Tolerances: three standard errors.
    assert float(drawn.double().mean()) == pytest.approx(0.5772157, abs=3 * 1.2825 / 724)
    assert float(drawn.double().var()) == pytest.approx(math.pi**2 / 6, rel=0.02)
    assert drawn.isfinite().all()


def test_noise_of_different_chunks_rows_and_columns_is_unrelated() -> None:
    torch.manual_seed(0)
    source = gumbel_noise(256, 256, 128, torch.zeros(0))
    one, two = source(slice(0, 128)).clone(), source(slice(128, 256)).clone()

    def correlation(a: Tensor, b: Tensor) -> float:
        return abs(float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1]))

    limit = 4 / 128  # four standard errors of 16,384 pairs
    assert correlation(one, two[:128]) < limit
    assert correlation(one[:, :-1], one[:, 1:]) < limit
    assert correlation(one[:-1], one[1:]) < limit
    assert correlation(one[:64], one[64:]) < limit
    assert len(torch.unique(torch.cat([one, two]))) > 0.99 * 256 * 256


def test_noise_follows_the_seed_of_torch() -> None:
    def draw(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return gumbel_noise(4, 8, 4, torch.zeros(0))(slice(0, 4)).clone()

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))


def test_the_best_noisy_code_is_drawn_with_the_probability_of_the_posterior() -> None:
    torch.manual_seed(0)
    scores = torch.tensor([0.0, 1.0, 2.0, -1.0])
    source = gumbel_noise(40_000, 4, 40_000, torch.zeros(0))
    picked = (source(slice(0, 40_000)) + scores).argmax(1)
    frequencies = torch.bincount(picked, minlength=4) / 40_000
    torch.testing.assert_close(frequencies, scores.softmax(0), atol=0.01, rtol=0)


def test_scores_in_half_precision_are_mixed_in_float32() -> None:
    torch.manual_seed(0)
    quantizer = GumbelQuantizer(32, 8, 192)
    scores = numbers(1, 32, 2, 2, dtype=torch.bfloat16).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        out = quantizer(scores)
    assert out.latent.dtype == torch.bfloat16
    assert out.losses["kl"].dtype == torch.float32
    out.latent.float().sum().backward()
    assert scores.grad is not None
    assert scores.grad.isfinite().all()


# With the noise's own spread, 1.28, or less, the noise would choose the code, and the decoder learn
# to do without codes.
def test_scores_that_are_built_for_it_choose_their_code_against_the_noise() -> None:
    torch.manual_seed(0)
    quantizer = GumbelQuantizer(256, 4, 48)
    scores = GumbelQuantizer.latent_spread * torch.randn(1, 256, 32, 32)
    noisy = scores - torch.log(-torch.log(torch.rand_like(scores)))
    kept = (noisy.argmax(1) == quantizer.eval()(scores).codes).float().mean()
    assert float(kept) > 0.4
