"""Patch embeddings against a plain restatement, and what must hold for any batch of images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from lit_eve.models.patch_embedding import (
    EvePatchEmbedding,
    EveV2PatchEmbedding,
    LinearPatchEmbedding,
)
from tests.models.eve_plain import eve_tokens, eve_v2_tokens
from tests.models.packed import pack_images
from tests.models.recording import Recording

Layer = EvePatchEmbedding | EveV2PatchEmbedding | LinearPatchEmbedding
SIZES = [(8, 8), (24, 8), (8, 40), (16, 24)]  # pixels; cells of 8


def eve() -> EvePatchEmbedding:
    return EvePatchEmbedding(patch=4, pool=2, width=16, out_width=12, heads=4)


def eve_v2() -> EveV2PatchEmbedding:
    return EveV2PatchEmbedding(patch=4, pool=2, width=16, out_width=12)


def linear() -> LinearPatchEmbedding:
    return LinearPatchEmbedding(patch=8, out_width=12)


EACH = pytest.mark.parametrize("make", [eve, eve_v2, linear])


def randomised(make: Callable[[], Layer], seed: int = 0) -> Layer:
    """Every parameter random, the norms' too, in float64."""
    torch.manual_seed(seed)
    layer = make().double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.3)
    return layer


def draw(sizes: list[tuple[int, int]], seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(3, *size, generator=generator, dtype=torch.float64) for size in sizes]


def plain(layer: Layer, image: Tensor) -> Tensor:
    if isinstance(layer, EvePatchEmbedding):
        return eve_tokens(layer, image)
    if isinstance(layer, EveV2PatchEmbedding):
        return eve_v2_tokens(layer, image)
    cell = layer.layout.cell
    tokens = []
    for y in range(0, image.shape[1], cell):
        for x in range(0, image.shape[2], cell):
            tokens.append(layer.patches(image[:, y : y + cell, x : x + cell].flatten()))
        tokens.append(layer.row_end_embedding)
    return torch.stack(tokens)


def gradients(layer: Layer, tokens: Tensor) -> dict[str, Tensor]:
    weights = torch.linspace(-1, 1, tokens.numel(), dtype=tokens.dtype).view_as(tokens)
    names, parameters = zip(*layer.named_parameters(), strict=True)
    grads = torch.autograd.grad((weights * tokens).sum(), parameters)
    return dict(zip(names, grads, strict=True))


@EACH
def test_packed_images_equal_one_at_a_time(make: Callable[[], Layer]) -> None:
    layer, images = randomised(make), draw(SIZES)
    packed = layer(pack_images(images, layer.layout))
    expected = torch.cat([plain(layer, image) for image in images])
    torch.testing.assert_close(packed, expected, atol=1e-11, rtol=1e-9)
    got, wanted = gradients(layer, packed), gradients(layer, expected)
    for name, gradient in wanted.items():
        torch.testing.assert_close(got[name], gradient, atol=1e-10, rtol=1e-8, msg=name)


@EACH
def test_an_image_gives_the_same_tokens_wherever_it_stands(make: Callable[[], Layer]) -> None:
    layer, images = randomised(make).float(), [image.float() for image in draw(SIZES)]
    length = layer.layout.num_tokens(images[0].shape[1] // 8, images[0].shape[2] // 8)
    first = layer(pack_images(images, layer.layout))[:length]
    last = layer(pack_images(images[::-1], layer.layout))[-length:]
    torch.testing.assert_close(first, last, atol=2e-6, rtol=1e-5)


@EACH
def test_a_batch_without_images_reaches_every_parameter(make: Callable[[], Layer]) -> None:
    layer = randomised(make).float()
    tokens = layer(pack_images([], layer.layout))
    assert tokens.shape == (0, 12)
    torch.autograd.backward(tokens.sum())
    for name, parameter in layer.named_parameters():
        assert parameter.grad is not None, name
        assert not parameter.grad.any(), name


@EACH
def test_the_work_is_the_same_operations_for_two_images_as_for_twelve(
    make: Callable[[], Layer],
) -> None:
    layer = randomised(make).float()
    names = []
    for repeats in (1, 6):
        images = pack_images([image.float() for image in draw(SIZES[1:3] * repeats)], layer.layout)
        layer.zero_grad()
        with Recording() as recorded:
            torch.autograd.backward(layer(images).sum())
        names.append(recorded.operations)
        assert not recorded.waits
    assert names[0] == names[1]


def test_cls_depends_on_what_the_image_shows() -> None:
    layer = randomised(eve)
    one, other = draw([(16, 16)], seed=1), draw([(16, 16)], seed=2)
    first, second = (layer(pack_images(image, layer.layout))[0] for image in (one, other))
    assert (first - second).abs().max() > 1e-3


def test_very_different_images_do_not_disturb_each_other_s_cls() -> None:
    # Softmax over all windows of one image only, also where another image's scores are far higher.
    layer = randomised(eve).float()
    assert isinstance(layer, EvePatchEmbedding)
    nn.init.normal_(layer.class_embedding, std=100.0)
    nn.init.normal_(layer.image_attention.query_norm.weight, std=100.0)
    nn.init.normal_(layer.image_attention.key_value_norm.weight, std=100.0)
    images = [image.float() for image in draw([(16, 16), (16, 16)])]
    together = layer(pack_images(images, layer.layout))
    alone = layer(pack_images(images[1:], layer.layout))
    assert together.isfinite().all()
    torch.testing.assert_close(together[-len(alone) :], alone, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("mixed", [True, False], ids=["autocast", "all in bfloat16"])
def test_low_precision_stays_near(mixed: bool) -> None:
    torch.manual_seed(0)
    layer, images = eve(), pack_images([image.float() for image in draw(SIZES)], eve().layout)
    exact = layer(images)
    if mixed:
        with torch.autocast("cpu", torch.bfloat16):
            rounded = layer(images)
    else:
        low = replace(images, patches=images.patches.bfloat16())
        rounded = layer.bfloat16()(low)
    torch.autograd.backward(rounded.float().sum())
    # Tokens are about 0.3; measured 4e-3.
    torch.testing.assert_close(rounded.float(), exact, atol=0.02, rtol=0.02)


def test_attention_scale_is_that_of_the_full_width() -> None:
    # The published weights were trained with 1024 ** -0.5, not with that of a 128-wide head.
    assert EvePatchEmbedding(2, 2, 64, 8, heads=4).window_attention.scale == 64**-0.5


# By hand, for 24 x 24 tokens of EVE-7B: convolution 2304 * 588 * 1024, CA1 (2 + 8) * 576 * 1024^2
# + 2 * 2304 * 1024, CA2 (2 + 2 * 576) * 1024^2 + 2 * 576 * 1024, network 601 * 5120 * 4096
# = 21.2469 G multiply-adds. The paper's table rounds to 42 and 170 GFLOP.
@pytest.mark.parametrize(("side", "gflop"), [(24, 42.5), (48, 167.8)])
def test_eve_7b_needs_the_published_arithmetic(side: int, gflop: float) -> None:
    with torch.device("meta"):
        layer = EvePatchEmbedding(14, 2, 1024, 4096, heads=8)
    assert layer.flops(side, side) / 1e9 == pytest.approx(gflop, abs=0.05)


def test_arithmetic_of_two_convolutions_and_of_a_linear_layer() -> None:
    # v2: 6 windows of 4 patches: 24 * 48 * 16 + 6 * 4 * 16 * 12 multiply-adds.
    assert eve_v2().flops(2, 3) == 2 * (24 * 48 * 16 + 6 * 4 * 16 * 12)
    assert linear().flops(2, 3) == 2 * 6 * 192 * 12


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(ValueError, match="width 16 is not a multiple of its 3 heads"):
        EvePatchEmbedding(4, 2, 16, 12, heads=3)
