"""VAR's quantizer against a plain loop over images and scales."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lit_eve.models.tokenizers.codebook import LearnedCodebook, Liveliness
from lit_eve.models.tokenizers.multi_scale import MultiScaleQuantizer
from lit_eve.models.tokenizers.nearest import Distance

FIXED = Liveliness(start="random")
SQUARE = [(1, 1), (2, 2), (3, 3), (4, 4)]
RECTANGULAR = [(1, 1), (2, 3), (3, 4), (4, 6)]


def build(
    scales: list[tuple[int, int]], distance: Distance = "euclidean", refiners: int = 4
) -> MultiScaleQuantizer:
    torch.manual_seed(0)
    codebook = LearnedCodebook(16, 4, distance, FIXED)
    return MultiScaleQuantizer(codebook, scales, refiners)


def latents(rows: int, columns: int) -> Tensor:
    return torch.randn(2, 4, rows, columns, generator=torch.Generator().manual_seed(1))


def plain(quantizer: MultiScaleQuantizer, f: Tensor, refiner: list[int]) -> tuple[Tensor, Tensor]:
    """Algorithm 1 of Tian et al. 2024 for one image in double precision: codes and result."""
    table = quantizer.codebook.vectors.detach().double()
    compared = F.normalize(table, dim=1) if quantizer.codebook.distance == "cosine" else table
    rest, result = f.double()[None], torch.zeros_like(f.double())[None]
    codes: list[int] = []
    for (rows, columns), which in zip(quantizer.scales, refiner, strict=True):
        small = F.adaptive_avg_pool2d(rest, (rows, columns))[0]
        picked = torch.zeros(rows, columns, dtype=torch.int64)
        for row in range(rows):
            for column in range(columns):
                token = small[:, row, column]
                if quantizer.codebook.distance == "cosine":
                    picked[row, column] = (compared @ token).argmax()
                else:
                    picked[row, column] = (compared - token).square().sum(1).argmin()
        codes += picked.flatten().tolist()
        enlarged = F.interpolate(
            table[picked].movedim(-1, 0)[None], f.shape[1:], mode="bicubic", align_corners=False
        )
        convolution = quantizer.refiners[which]
        assert isinstance(convolution, torch.nn.Conv2d)
        assert convolution.bias is not None
        refined = F.conv2d(
            enlarged, convolution.weight.double(), convolution.bias.double(), padding=1
        )
        detail = 0.5 * enlarged + 0.5 * refined
        result, rest = result + detail, rest - detail
    return torch.tensor(codes), result[0].detach()


@pytest.mark.parametrize("scales", [SQUARE, RECTANGULAR], ids=["square", "rectangular"])
@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_codes_and_result_equal_the_plain_algorithm(
    scales: list[tuple[int, int]], distance: Distance
) -> None:
    quantizer = build(scales, distance).eval()
    latent = latents(*scales[-1])
    out = quantizer(latent)
    assert out.codes is not None
    for image in range(2):
        codes, result = plain(quantizer, latent[image], [0, 1, 2, 3])
        assert out.codes[image].tolist() == codes.tolist()
        torch.testing.assert_close(out.latent[image].double(), result, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(quantizer.embed(out.codes), out.latent)


def test_ten_scales_share_four_convolutions_as_published() -> None:
    scales = [(n, n) for n in (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)]
    quantizer = build(scales)
    assert [quantizer._refiner(n) for n in range(10)] == [0, 0, 1, 1, 1, 2, 2, 3, 3, 3]
    assert quantizer.eval()(latents(16, 16)).codes.shape == (2, 680)
    for count in range(2, 12):
        first = 1 / 3 / count if count == 4 else 1 / 2 / count
        ticks = np.linspace(first, 1 - first, count)
        nearest = [int(np.argmin(np.abs(ticks - n / 9))) for n in range(10)]
        assert [build(scales, refiners=count)._refiner(n) for n in range(10)] == nearest
    assert [build(scales, refiners=1)._refiner(n) for n in range(10)] == [0] * 10
    assert [build(scales, refiners=10)._refiner(n) for n in range(10)] == list(range(10))


def test_the_losses_compare_every_partial_result() -> None:
    quantizer = build(SQUARE)
    latent = latents(4, 4).requires_grad_()
    out = quantizer(latent)
    assert out.codes is not None
    results = quantizer.partial_results(out.codes)
    mean = torch.stack([(r - latent.detach()).square().mean() for r in results]).mean()
    torch.testing.assert_close(out.losses["codebook"], mean)
    torch.testing.assert_close(out.losses["commitment"], 0.25 * mean)
    (gradient,) = torch.autograd.grad(out.losses["commitment"], latent, retain_graph=True)
    expected = sum((latent - r).detach() * 2 / latent.numel() for r in results) * 0.25 / 4
    torch.testing.assert_close(gradient, expected)
    (gradient,) = torch.autograd.grad((out.latent * 3).sum(), latent)
    assert torch.equal(gradient, torch.full_like(latent, 3))


def test_another_grid_scales_the_scales_along() -> None:
    quantizer = build(SQUARE).eval()
    assert quantizer.scales_of((8, 4)) == [(2, 1), (4, 2), (6, 3), (8, 4)]
    assert quantizer.scales_of((1, 2)) == [(1, 1), (1, 1), (1, 2), (1, 2)]
    latent = latents(8, 4)
    out = quantizer(latent)
    assert out.codes is not None
    assert out.codes.shape == (2, 2 + 8 + 18 + 32)
    torch.testing.assert_close(quantizer.embed(out.codes, (8, 4)), out.latent)
    with pytest.raises(ValueError, match=r"do not fit a grid of \(4, 4\).*Give the grid"):
        quantizer.embed(out.codes)


def test_codes_are_split_into_maps() -> None:
    quantizer = build(RECTANGULAR).eval()
    codes = quantizer(latents(4, 6)).codes
    parts = quantizer.split(codes, (4, 6))
    assert list(parts) == list(quantizer.levels_of_codes)
    assert [tuple(part.shape) for part in parts.values()] == [(2, *scale) for scale in RECTANGULAR]
    assert torch.equal(torch.cat([part.flatten(1) for part in parts.values()], 1), codes)


@pytest.mark.parametrize("scales", [[], [(2, 2), (1, 1)], [(2, 2), (2, 2)], [(0, 1), (2, 2)]])
def test_scales_that_do_not_grow_are_refused(scales: list[tuple[int, int]]) -> None:
    with pytest.raises(ValueError, match="no way from coarse to fine"):
        build(scales)
