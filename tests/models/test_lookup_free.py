"""LFQ against a softmax over all codes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lit_eve.models.tokenizers.lfq import EntropyLoss, LookupFreeQuantizer, code_entropies


def whole(z: Tensor, inverse_temperature: float) -> tuple[Tensor, Tensor]:
    """Both entropies from the [tokens x codes] matrix of softmax(-|z - c|^2 t)."""
    bits = z.shape[1]
    codes = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0]).double()] * bits).view(-1, bits)
    distances = (z[:, None] - codes[None]).square().sum(-1)
    posterior = torch.softmax(-inverse_temperature * distances, 1)

    log_posterior = torch.log_softmax(-inverse_temperature * distances, 1)
    mean = posterior.mean(0)
    used = mean > 0  # the others contribute nothing
    return -(posterior * log_posterior).sum(1).mean(), -(mean[used] * mean[used].log()).sum()


@pytest.mark.parametrize("bits", [1, 2, 5, 8])
@pytest.mark.parametrize("scale", [0.003, 0.1, 2.0])
def test_entropies_and_gradients_equal_the_whole_softmax(bits: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(bits)
    z = (scale * torch.randn(40, bits, generator=generator, dtype=torch.float64)).requires_grad_()
    expected, found = whole(z, 100.0), code_entropies(4 * 100.0 * z)
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)
    for index in (0, 1):
        wanted = torch.autograd.grad(expected[index], z, retain_graph=True)
        got = torch.autograd.grad(found[index], z, retain_graph=True)
        torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-11)


def test_certain_tokens_have_finite_gradients() -> None:
    z = torch.tensor([[5.0, -5.0], [5.0, 5.0]]).requires_grad_()  # two of four codes: mean 0
    token, mean = code_entropies(400 * z)
    assert mean.item() == pytest.approx(math.log(2))
    assert token.item() == 0
    (token - mean).backward()  # type: ignore[no-untyped-call]
    assert z.grad is not None
    assert z.grad.isfinite().all()


def test_the_loss_weighs_both_entropies_and_the_commitment() -> None:
    torch.manual_seed(0)
    latent = 0.01 * torch.randn(2, 6, 3, 4)
    quantizer = LookupFreeQuantizer(6, EntropyLoss(0.3, 2.0, 50.0), 0.5)
    out = quantizer(latent)
    tokens = latent.double().movedim(1, -1).flatten(0, 2)
    token, mean = whole(tokens, 50.0)
    assert out.losses["entropy"].item() == pytest.approx(
        (0.3 * (token - 2.0 * mean)).item(), rel=1e-5
    )
    signs = torch.where(tokens > 0, 1.0, -1.0)
    assert out.losses["commitment"].item() == pytest.approx(
        0.5 * (tokens - signs).square().mean().item(), rel=1e-6
    )


def test_the_first_channel_is_the_most_significant_bit_and_zero_is_minus() -> None:
    latent = torch.tensor([0.5, 0.0, -2.0, 1e-9]).view(1, 4, 1, 1)
    out = LookupFreeQuantizer(4)(latent)
    assert out.codes is not None
    assert out.codes.item() == 0b1001
    assert out.latent.flatten().tolist() == [1.0, -1.0, -1.0, 1.0]


def test_262144_codes_need_no_matrix_of_tokens_and_codes() -> None:
    torch.manual_seed(0)
    latent = (0.01 * torch.randn(2, 18, 16, 16)).requires_grad_()
    out = LookupFreeQuantizer(18)(latent)
    (gradient,) = torch.autograd.grad(sum(out.losses.values(), torch.zeros(())), latent)
    assert gradient.isfinite().all()
    assert 0 < out.statistics["token_entropy"].item() < 18 * math.log(2)
    assert out.statistics["mean_entropy"].item() <= 18 * math.log(2)
    # The largest tensor that the graph keeps is the mean over tokens, or one half of the bits.
    sizes = saved_sizes(lambda: LookupFreeQuantizer(18)(latent).losses["entropy"])
    assert max(sizes) <= max(2**18, 512 * 512)  # tokens x codes would be 2 ** 27


def saved_sizes(run: object) -> list[int]:
    sizes: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        assert callable(run)
        run()
    return sizes


def test_every_code_comes_back_from_its_signs() -> None:
    quantizer = LookupFreeQuantizer(5)
    codes = torch.arange(32).view(1, 4, 8)
    assert torch.equal(quantizer(quantizer.embed(codes)).codes, codes)


@pytest.mark.parametrize("bits", [0, 25])
def test_impossible_numbers_of_bits_are_refused(bits: int) -> None:
    with pytest.raises(ValueError, match=rf"^{bits} bits.*1 to 24"):
        LookupFreeQuantizer(bits)
