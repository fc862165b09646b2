"""Residual stacks, stage by stage."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from lit_eve.models.tokenizers.codebook import EmaCodebook, Liveliness
from lit_eve.models.tokenizers.fsq import FiniteScalarQuantizer
from lit_eve.models.tokenizers.lfq import LookupFreeQuantizer
from lit_eve.models.tokenizers.residual import ResidualQuantizer, Stage
from lit_eve.models.tokenizers.vector import VectorQuantizer

FIXED = Liveliness(start="random")


def stack(count: int = 3, gradient: str = "straight_through") -> ResidualQuantizer:
    torch.manual_seed(0)
    return ResidualQuantizer(
        [
            VectorQuantizer(EmaCodebook(8, 4, liveliness=FIXED), gradient=gradient)  # type: ignore[arg-type]
            for _ in range(count)
        ]
    )


def latents(seed: int = 0) -> Tensor:
    return torch.randn(2, 4, 3, 2, generator=torch.Generator().manual_seed(seed))


def test_each_stage_takes_the_nearest_code_of_what_is_left() -> None:
    quantizer, latent = stack(), latents()
    tables = [stage.codebook.vectors.double().clone() for stage in vq_stages(quantizer)]
    out = quantizer(latent)
    assert out.codes is not None
    for image in range(2):
        for row in range(3):
            for column in range(2):
                rest = latent[image, :, row, column].double()
                for stage, table in enumerate(tables):
                    code = int((table - rest).square().sum(1).argmin())
                    assert out.codes[image, stage, row, column] == code
                    rest = rest - table[code]
                torch.testing.assert_close(
                    out.latent[image, :, row, column].double(),
                    latent[image, :, row, column].double() - rest,
                    rtol=1e-5,
                    atol=1e-6,
                )


def vq_stages(quantizer: ResidualQuantizer) -> list[VectorQuantizer]:
    stages = [stage for stage in quantizer.stages if isinstance(stage, VectorQuantizer)]
    assert len(stages) == len(quantizer.stages)
    return stages


def test_the_decoders_gradient_passes_once_not_once_per_stage() -> None:
    latent, probe = latents().requires_grad_(), latents(1)
    out = stack()(latent)
    (gradient,) = torch.autograd.grad((out.latent * probe).sum(), latent)
    assert torch.equal(gradient, probe)


def test_the_rotation_turns_the_latent_onto_the_sum() -> None:
    latent, probe = latents().requires_grad_(), latents(1)
    out = stack(gradient="rotation")(latent)
    (gradient,) = torch.autograd.grad((out.latent * probe).sum(), latent)
    assert not torch.equal(gradient, probe)
    # A rotation and a scaling keep the gradient's length up to |q| / |e|.
    scale = out.latent.detach().norm(dim=1) / latent.detach().norm(dim=1)
    torch.testing.assert_close(gradient.norm(dim=1), probe.norm(dim=1) * scale)


def test_the_losses_of_the_stages_are_added() -> None:
    latent = latents().requires_grad_()
    quantizer = stack()
    tables = [stage.codebook.vectors.clone() for stage in vq_stages(quantizer)]
    out = quantizer(latent)
    assert out.codes is not None
    expected, rest = torch.zeros(()), latent.detach()
    for stage, table in enumerate(tables):
        vectors = table[out.codes[:, stage]].movedim(-1, 1)
        expected = expected + 0.25 * (rest - vectors).square().mean()
        rest = rest - vectors
    torch.testing.assert_close(out.losses["commitment"].detach(), expected)


def test_fewer_stages_decode_to_a_coarser_latent() -> None:
    quantizer, latent = stack().eval(), latents()
    out = quantizer(latent)
    assert out.codes is not None
    torch.testing.assert_close(quantizer.embed(out.codes), out.latent)
    errors = [
        float((quantizer.embed(out.codes[:, :count]) - latent).square().mean())
        for count in (1, 2, 3)
    ]
    assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize(
    "stages",
    [
        pytest.param([FiniteScalarQuantizer([5, 5, 5, 5]) for _ in range(3)], id="fsq"),
        pytest.param([LookupFreeQuantizer(4) for _ in range(6)], id="lfq"),
    ],
)
def test_fixed_levels_shrink_from_stage_to_stage(stages: list[Stage]) -> None:
    quantizer = ResidualQuantizer(stages).eval()
    latent = torch.rand(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)) * 1.6 - 0.8
    out = quantizer(latent)
    assert out.codes is not None
    torch.testing.assert_close(quantizer.embed(out.codes), out.latent)
    errors = [
        float((quantizer.embed(out.codes[:, : count + 1]) - latent).abs().mean())
        for count in range(len(stages))
    ]
    assert all(after < 0.75 * before for before, after in pairwise(errors))


def test_codes_are_split_by_stage() -> None:
    quantizer = stack(2)
    out = quantizer(latents())
    assert out.codes is not None
    parts = quantizer.split(out.codes, (3, 2))
    assert list(parts) == ["stage_1", "stage_2"] == list(quantizer.levels_of_codes)
    assert torch.equal(parts["stage_2"], out.codes[:, 1])
    assert "stage_2/quantization_error" in out.statistics


def test_impossible_stacks_and_codes_are_refused() -> None:
    with pytest.raises(ValueError, match="do not form a stack"):
        ResidualQuantizer([])
    with pytest.raises(ValueError, match=r"\(2, 25\), \(2, 35\).*same channels and codes"):
        ResidualQuantizer([FiniteScalarQuantizer([5, 5]), FiniteScalarQuantizer([7, 5])])
    with pytest.raises(ValueError, match=r"do not add up to the latent.*FSQ alone"):
        ResidualQuantizer([FiniteScalarQuantizer([5, 5], standardize=True)] * 2)
    with pytest.raises(ValueError, match=r"2 residual stages.*at most 2"):
        stack(2).embed(torch.zeros(1, 3, 2, 2, dtype=torch.int64))
