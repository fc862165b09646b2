"""What holds for every quantizer."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from lit_eve.models.tokenizers.codebook import EmaCodebook, LearnedCodebook, Liveliness
from lit_eve.models.tokenizers.fsq import FiniteScalarQuantizer
from lit_eve.models.tokenizers.gaussian import GaussianBottleneck
from lit_eve.models.tokenizers.gumbel import GumbelQuantizer
from lit_eve.models.tokenizers.lfq import LookupFreeQuantizer
from lit_eve.models.tokenizers.multi_scale import MultiScaleQuantizer
from lit_eve.models.tokenizers.quantizer import Quantizer
from lit_eve.models.tokenizers.residual import ResidualQuantizer
from lit_eve.models.tokenizers.vector import VectorQuantizer

FIXED = Liveliness(start="random")
DISCRETE: dict[str, Callable[[], Quantizer]] = {
    "gumbel": lambda: GumbelQuantizer(16, 6, 192),
    "vq, averages": lambda: VectorQuantizer(EmaCodebook(16, 6, liveliness=FIXED)),
    "vq, loss": lambda: VectorQuantizer(LearnedCodebook(16, 6, liveliness=FIXED)),
    "vq, cosine": lambda: VectorQuantizer(EmaCodebook(16, 6, "cosine", FIXED)),
    "vq, rotation": lambda: VectorQuantizer(EmaCodebook(16, 6, liveliness=FIXED), 0.25, "rotation"),
    "fsq": lambda: FiniteScalarQuantizer([5, 4, 3]),
    "fsq, standardized": lambda: FiniteScalarQuantizer([5, 4, 3], standardize=True),
    "lfq": lambda: LookupFreeQuantizer(6),
    "residual": lambda: ResidualQuantizer(
        [VectorQuantizer(EmaCodebook(16, 6, liveliness=FIXED)) for _ in range(2)]
    ),
    "multi_scale": lambda: MultiScaleQuantizer(
        LearnedCodebook(16, 6, liveliness=FIXED), [(1, 1), (3, 5)]
    ),
}
ALL = DISCRETE | {"gaussian": lambda: GaussianBottleneck(4, 192)}


def latent(quantizer: Quantizer, rows: int = 3, columns: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, quantizer.in_channels, rows, columns, generator=generator)


@pytest.mark.parametrize("name", ALL)
def test_shapes_types_and_gradients(name: str) -> None:
    torch.manual_seed(0)
    quantizer = ALL[name]()
    source = latent(quantizer).requires_grad_()
    out = quantizer(source)
    assert out.latent.shape == (2, quantizer.out_channels, 3, 5)
    assert all(loss.ndim == 0 for loss in out.losses.values())
    assert all(not value.requires_grad for value in out.statistics.values())
    (gradient,) = torch.autograd.grad(out.latent.square().sum(), source)
    assert gradient.isfinite().all()
    assert float(gradient.abs().sum()) > 0
    if quantizer.num_codes is not None:
        assert out.codes is not None
        assert out.codes.dtype == torch.int64
        assert 0 <= int(out.codes.min()) <= int(out.codes.max()) < quantizer.num_codes
        assert list(quantizer.split(out.codes, (3, 5))) == list(quantizer.levels_of_codes)


@pytest.mark.parametrize("name", DISCRETE)
def test_codes_stand_for_the_latent_that_evaluation_hands_out(name: str) -> None:
    torch.manual_seed(0)
    quantizer = DISCRETE[name]().eval()
    out = quantizer(latent(quantizer))
    assert out.codes is not None
    assert torch.equal(quantizer.embed(out.codes), out.latent)


@pytest.mark.parametrize("name", ALL)
def test_memory_format_changes_nothing(name: str) -> None:
    torch.manual_seed(0)
    quantizer = ALL[name]().eval()
    source = latent(quantizer)
    scattered = source.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(quantizer(source).latent, quantizer(scattered).latent)


@pytest.mark.parametrize("name", ALL)
def test_the_latent_that_came_in_is_left_alone(name: str) -> None:
    quantizer = ALL[name]()
    source = latent(quantizer)
    kept = source.clone()
    quantizer(source)
    assert torch.equal(source, kept)


@pytest.mark.parametrize("name", ALL)
def test_half_precision_comes_back_as_it_came(name: str) -> None:
    torch.manual_seed(0)
    quantizer = ALL[name]().to(torch.bfloat16)
    out = quantizer(latent(quantizer).to(torch.bfloat16))
    assert out.latent.dtype == torch.bfloat16
    assert all(loss.dtype == torch.float32 for loss in out.losses.values())
    state = {key: t.dtype for key, t in quantizer.state_dict().items() if t.is_floating_point()}
    assert set(state.values()) <= {torch.float32}


@pytest.mark.parametrize("name", ALL)
def test_wrong_and_empty_latents_are_refused(name: str) -> None:
    quantizer = ALL[name]()
    with pytest.raises(ValueError, match=rf"which takes \(images, {quantizer.in_channels}, rows"):
        quantizer(torch.zeros(1, quantizer.in_channels + 1, 2, 2))
    with pytest.raises(ValueError, match=r"is empty.*Drop empty batches"):
        quantizer(torch.zeros(0, quantizer.in_channels, 2, 2))


@pytest.mark.parametrize("name", DISCRETE)
def test_codes_out_of_range_are_named(name: str) -> None:
    quantizer = DISCRETE[name]()
    codes = quantizer.eval()(latent(quantizer)).codes
    assert codes is not None
    codes.view(-1)[0] = quantizer.num_codes
    with pytest.raises(ValueError, match=rf"code {quantizer.num_codes} is out of range.*0 to"):
        quantizer.embed(codes)
    codes.view(-1)[0] = -3
    with pytest.raises(ValueError, match=r"code -3 is out of range"):
        quantizer.embed(codes)
    with pytest.raises(ValueError, match="whole numbers are needed"):
        quantizer.embed(codes.float())
    with pytest.raises(ValueError, match="at least one"):
        quantizer.embed(codes[:0])


def test_a_grid_that_contradicts_the_codes_is_refused() -> None:
    quantizer = FiniteScalarQuantizer([5, 4, 3])
    codes = torch.zeros(1, 2, 3, dtype=torch.int64)
    assert torch.equal(quantizer.embed(codes, (2, 3)), quantizer.embed(codes))
    with pytest.raises(ValueError, match=r"grid of \(3, 2\).*leave `grid` out"):
        quantizer.embed(codes, (3, 2))
