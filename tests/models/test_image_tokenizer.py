from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lit_eve.models.tokenizers.codebook import EmaCodebook, LearnedCodebook, Liveliness
from lit_eve.models.tokenizers.convolutional import (
    ConvolutionalDecoder,
    ConvolutionalEncoder,
    Layout,
)
from lit_eve.models.tokenizers.fsq import FiniteScalarQuantizer
from lit_eve.models.tokenizers.gaussian import GaussianBottleneck
from lit_eve.models.tokenizers.gumbel import GumbelQuantizer
from lit_eve.models.tokenizers.image_tokenizer import ImageTokenizer
from lit_eve.models.tokenizers.multi_scale import MultiScaleQuantizer
from lit_eve.models.tokenizers.pixels import LogitLaplacePixels, PlainPixels, check_pixels
from lit_eve.models.tokenizers.quantizer import Quantizer
from lit_eve.models.tokenizers.residual import ResidualQuantizer
from lit_eve.models.tokenizers.vector import VectorQuantizer

FIXED = Liveliness(start="random")
LAYOUT = Layout(8, (1, 2, 2), 1)


def vq() -> VectorQuantizer:
    return VectorQuantizer(EmaCodebook(16, 6, liveliness=FIXED))


def tokenizer(quantizer: Quantizer | None = None) -> ImageTokenizer:
    torch.manual_seed(0)
    chosen = quantizer or vq()
    return ImageTokenizer(
        ConvolutionalEncoder(chosen.in_channels, LAYOUT),
        chosen,
        ConvolutionalDecoder(chosen.out_channels, LAYOUT),
        PlainPixels(),
    )


def images(count: int = 2, height: int = 16, width: int = 24, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(seed))


def test_decoded_codes_are_the_reconstruction() -> None:
    model = tokenizer()
    codes = model.encode(images())
    assert codes.shape == (2, 4, 6)
    torch.testing.assert_close(model.decode(codes), model.reconstruct(images()))


@pytest.mark.parametrize(
    "quantizer",
    [
        vq(),
        FiniteScalarQuantizer([5, 3]),
        ResidualQuantizer([vq(), vq()]),
        MultiScaleQuantizer(LearnedCodebook(8, 4, liveliness=FIXED), [(1, 1), (4, 6)]),
        GumbelQuantizer(8, 4, 48),
    ],
    ids=["vq", "fsq", "residual", "multi_scale", "gumbel"],
)
def test_images_of_mixed_sizes_come_back_in_their_order(quantizer: Quantizer) -> None:
    model = tokenizer(quantizer)
    mixed = [
        images(1, 16, 24)[0],
        images(1, 8, 12, seed=1)[0],
        images(1, 16, 24, seed=2)[0],
        images(1, 24, 16, seed=3)[0],
    ]
    codes = model.encode(mixed)
    alone = [model.encode(image[None])[0] for image in mixed]
    assert all(torch.equal(one, other) for one, other in zip(codes, alone, strict=True))
    grids = [(image.shape[1] // 4, image.shape[2] // 4) for image in mixed]
    decoded = model.decode(codes, grids)
    for image, picture in zip(mixed, decoded, strict=True):
        assert picture.shape == image.shape
        # Convolutions of another batch size round otherwise: at most 1.4e-5 was seen.
        torch.testing.assert_close(picture, model.reconstruct(image[None])[0], atol=1e-4, rtol=1e-4)


def test_encoding_does_not_depend_on_the_mode_and_leaves_it() -> None:
    model = tokenizer(GumbelQuantizer(8, 4, 48))
    codes = model.eval().encode(images())
    model.train()
    model.decoder.eval()  # type: ignore[attr-defined]
    assert torch.equal(model.encode(images()), codes)
    assert model.training
    assert model.quantizer.training
    assert not model.decoder.training  # type: ignore[attr-defined]


def test_training_in_between_learns_and_encoding_does_not() -> None:
    model = tokenizer()
    before = model.quantizer.state_dict()["codebook.vectors"].clone()
    model.encode(images())
    assert torch.equal(model.quantizer.state_dict()["codebook.vectors"], before)
    model(images())
    assert not torch.equal(model.quantizer.state_dict()["codebook.vectors"], before)


def test_only_a_gumbel_tokenizer_relaxes() -> None:
    model = tokenizer(GumbelQuantizer(8, 4, 48))
    assert model.relaxes
    assert not torch.equal(model.reconstruct(images(), relaxed=True), model.reconstruct(images()))
    with pytest.raises(ValueError, match="has no relaxed codes"):
        tokenizer().reconstruct(images(), relaxed=True)


def test_a_continuous_tokenizer_reconstructs_but_has_no_codes() -> None:
    model = tokenizer(GaussianBottleneck(4, 48))
    assert model.reconstruct(images()).shape == (2, 3, 16, 24)
    with pytest.raises(ValueError, match="continuous, so there are no codes"):
        model.encode(images())


def test_parts_that_do_not_fit_are_refused() -> None:
    encoder, decoder = ConvolutionalEncoder(6, LAYOUT), ConvolutionalDecoder(6, LAYOUT)
    with pytest.raises(ValueError, match=r"encoder.out_channels is 5.*need 6"):
        ImageTokenizer(ConvolutionalEncoder(5, LAYOUT), vq(), decoder, PlainPixels())
    with pytest.raises(ValueError, match=r"decoder.in_channels is 5.*need 6"):
        ImageTokenizer(encoder, vq(), ConvolutionalDecoder(5, LAYOUT), PlainPixels())
    with pytest.raises(ValueError, match=r"decoder.out_channels is 3.*need 6"):
        ImageTokenizer(encoder, vq(), decoder, LogitLaplacePixels())
    other = ConvolutionalDecoder(6, Layout(8, (1, 2), 1))
    with pytest.raises(ValueError, match=r"decoder.stride is 2.*need 4"):
        ImageTokenizer(encoder, vq(), other, PlainPixels())


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (torch.zeros(1, 3, 16, 30), r"16 x 30 pixels do not divide.*4 x 4.*e.g. 16 x 32"),
        (torch.zeros(1, 3, 1, 4), r"1 x 4 pixels do not divide.*e.g. 4 x 4"),
        (torch.zeros(0, 3, 16, 16), "is empty: drop empty batches"),
        (torch.full((1, 3, 16, 16), float("nan")), r"pixels go from nan to nan.*NaN means"),
        (torch.full((1, 3, 16, 16), 255.0), r"pixels go from 255.0.*bytes are divided by 255"),
        (torch.full((1, 3, 16, 16), -0.5), r"pixels go from -0.5"),
        (torch.zeros(1, 3, 16, 16, dtype=torch.uint8), "Divide bytes by 255"),
        (torch.zeros(3, 16, 16), r"\(images, 3, height, width\) in \[0, 1\]"),
        (torch.zeros(1, 1, 16, 16), "is no batch of images"),
    ],
)
def test_impossible_images_are_refused_with_the_way_out(pixels: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_pixels(pixels, 4)
    with pytest.raises(ValueError, match=message):
        tokenizer().encode(pixels)


def test_one_bad_value_among_many_is_found() -> None:
    pixels = images()
    pixels[1, 2, 3, 4] = float("nan")
    with pytest.raises(ValueError, match="NaN means that a file was decoded wrongly"):
        check_pixels(pixels, 4)


def test_codes_of_another_tokenizer_are_refused() -> None:
    with pytest.raises(ValueError, match=r"code 16 is out of range.*0 to 15"):
        tokenizer().decode(torch.full((1, 2, 2), 16))


# Worked by hand: 0.8 x + 0.1, and its inverse at sigmoid(mean), clamped.
def test_logit_laplace_pixels_stay_between_a_tenth_and_nine_tenths() -> None:
    space = LogitLaplacePixels()
    mapped = space.to_model(torch.tensor([0.0, 0.5, 1.0]))
    torch.testing.assert_close(mapped, torch.tensor([0.1, 0.5, 0.9]))
    outputs = torch.zeros(1, 6, 1, 3)
    outputs[:, :3] = torch.logit(torch.tensor([0.05, 0.3, 0.95]))
    outputs[:, 3:] = 7.0  # scales say nothing about the reconstruction
    expected = torch.tensor([0.0, 0.25, 1.0])
    torch.testing.assert_close(space.to_pixels(outputs)[0, 0, 0], expected)
    signed = torch.tensor([-1.125, -0.5, 1.125])
    torch.testing.assert_close(space.to_signed(outputs)[0, 0, 0], signed)


def test_plain_pixels_go_from_minus_1_to_1() -> None:
    space = PlainPixels()
    assert space.to_model(torch.tensor([0.0, 0.5, 1.0])).tolist() == [-1.0, 0.0, 1.0]
    assert space.to_pixels(torch.tensor([-3.0, 0.0, 0.5])).tolist() == [0.0, 0.5, 0.75]
