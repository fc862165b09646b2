from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lit_eve.models.tokenizers.convolutional import (
    ConvolutionalDecoder,
    ConvolutionalEncoder,
    Halve,
    Layout,
    ResidualBlock,
    SpatialAttention,
)


@pytest.mark.parametrize(
    "layout",
    [
        Layout(8, (1, 2), 1),
        Layout(8, (1, 1, 2), 2, attention=(2,)),
        Layout(8, (2,), 1, norm="none"),
        Layout(6, (1, 2, 2, 1), 1, attention=(0, 1), norm="group"),
    ],
)
def test_any_layout_maps_any_size_down_and_back(layout: Layout) -> None:
    encoder, decoder = ConvolutionalEncoder(5, layout), ConvolutionalDecoder(5, layout, 3)
    side = layout.stride
    latent = encoder(torch.rand(2, 3, 2 * side, 3 * side))
    assert latent.shape == (2, 5, 2, 3)
    assert decoder(latent).shape == (2, 3, 2 * side, 3 * side)
    assert encoder.stride == decoder.stride == side


def test_halving_pads_right_and_below() -> None:
    halve = Halve(1)
    with torch.no_grad():
        halve.convolution.weight.fill_(1.0)
        halve.convolution.bias.zero_()  # type: ignore[union-attr]
    image = torch.arange(16.0).view(1, 1, 4, 4)
    # Worked by hand: sums of the 3x3 windows that start at (0, 0), (0, 2), (2, 0) and (2, 2).
    assert halve(image).flatten().tolist() == [45.0, 39.0, 66.0, 50.0]


def test_attention_is_softmax_over_all_cells() -> None:
    torch.manual_seed(0)
    attention = SpatialAttention(8, "group")
    x = torch.randn(2, 8, 3, 4)
    query, key, value = attention.project_in(attention.norm(x)).flatten(2).chunk(3, dim=1)
    weights = torch.softmax(query.transpose(1, 2) @ key / 8**0.5, dim=2)
    mixed = (value @ weights.transpose(1, 2)).view(x.shape)
    torch.testing.assert_close(attention(x), x + attention.project_out(mixed))


def test_cells_far_apart_do_not_see_each_other_without_attention() -> None:
    torch.manual_seed(0)
    image = torch.rand(1, 3, 64, 64)
    changed = image.clone()
    changed[..., 60:] += 1

    def first_cell_moves(layout: Layout) -> bool:
        torch.manual_seed(0)
        encoder = ConvolutionalEncoder(4, layout)
        return not torch.equal(encoder(image)[..., 0], encoder(changed)[..., 0])

    assert not first_cell_moves(Layout(8, (1, 1), 1, norm="none"))
    assert first_cell_moves(Layout(8, (1, 1), 1, norm="none", attention=(1,)))


def test_the_last_weight_is_the_one_the_image_comes_out_of() -> None:
    decoder = ConvolutionalDecoder(4, Layout(8, (1, 2), 1))
    latent = torch.randn(1, 4, 2, 2)
    image = decoder(latent)
    expected = F.conv2d(
        decoder.layers[:-1](latent),
        decoder.last_weight,
        decoder.layers[-1].bias,  # type: ignore[arg-type]
        padding=1,
    )
    assert torch.equal(image, expected)


def test_impossible_layouts_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one level"):
        Layout(8, ())
    with pytest.raises(ValueError, match="every multiplier"):
        Layout(8, (1, 0))
    with pytest.raises(ValueError, match=r"attention at level 2.*0 \(finest\) to 1.*\[1\]"):
        Layout(8, (1, 2), attention=(2,))


@pytest.mark.parametrize(
    ("width", "groups"), [(2, 1), (8, 2), (24, 4), (64, 16), (128, 32), (160, 32), (512, 32)]
)
def test_no_norm_takes_a_channel_alone(width: int, groups: int) -> None:
    block = ResidualBlock(width, width, "group")
    norms = [module for module in block.modules() if isinstance(module, nn.GroupNorm)]
    assert [norm.num_groups for norm in norms] == [groups, groups]


# 64 images of 4096 numbers: the mean square is off by 1 / sqrt(2 * channels) or so, 0.09.
@pytest.mark.parametrize("spread", [1.0, 4.0])
def test_latents_start_with_the_spread_asked_for(spread: float) -> None:
    torch.manual_seed(0)
    encoder = ConvolutionalEncoder(64, Layout(64, (1, 1), 1), spread=spread)
    latent = encoder(torch.rand(8, 3, 16, 16))
    assert float(latent.detach().square().mean()) == pytest.approx(spread**2, rel=0.25)
