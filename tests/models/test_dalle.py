"""DALL-E's encoder and decoder against a re-statement written layer by layer."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lit_eve.models.tokenizers.dalle import DalleDecoder, DalleEncoder

WIDTH, BLOCKS, CODES, CODE_WIDTH = 8, 2, 12, 6

State = dict[str, Tensor]


def conv(state: State, name: str, x: Tensor) -> Tensor:
    kernel = state[f"{name}.w"]
    return F.conv2d(x, kernel, state[f"{name}.b"], padding=(kernel.shape[-1] - 1) // 2)


def block(state: State, name: str, x: Tensor, gain: float) -> Tensor:
    identity = conv(state, f"{name}.id_path", x) if f"{name}.id_path.w" in state else x
    for number in range(1, 5):
        x = conv(state, f"{name}.res_path.conv_{number}", F.relu(x))
    return identity + gain * x


def encode(state: State, x: Tensor) -> Tensor:
    x = conv(state, "blocks.input", x)
    for group in range(1, 5):
        for number in range(1, BLOCKS + 1):
            x = block(state, f"blocks.group_{group}.block_{number}", x, 1 / (4 * BLOCKS) ** 2)
        if group < 4:
            x = F.max_pool2d(x, 2)
    return conv(state, "blocks.output.conv", F.relu(x))


def decode(state: State, x: Tensor) -> Tensor:
    if "blocks.input.w" in state:
        x = conv(state, "blocks.input", x)
    for group in range(1, 5):
        for number in range(1, BLOCKS + 1):
            x = block(state, f"blocks.group_{group}.block_{number}", x, 1 / (4 * BLOCKS) ** 2)
        if group < 4:
            x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    return conv(state, "blocks.output.conv", F.relu(x))


def double(module: torch.nn.Module) -> State:
    return {name: weight.double() for name, weight in module.state_dict().items()}


@pytest.mark.parametrize("size", [(32, 48), (8, 8)])
def test_the_encoder_computes_what_the_layers_say(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    encoder = DalleEncoder(CODES, WIDTH, BLOCKS)
    image = torch.rand(2, 3, *size)
    scores = encoder(image)
    assert scores.shape == (2, CODES, size[0] // 8, size[1] // 8)
    torch.testing.assert_close(
        scores.double(), encode(double(encoder), image.double()), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("num_codes", [None, CODES])
def test_the_decoder_computes_what_the_layers_say(num_codes: int | None) -> None:
    torch.manual_seed(0)
    decoder = DalleDecoder(6, WIDTH, BLOCKS, CODE_WIDTH, num_codes)
    latent = torch.randn(2, decoder.in_channels, 3, 2)
    image = decoder(latent)
    assert image.shape == (2, 6, 24, 16)
    torch.testing.assert_close(
        image.double(), decode(double(decoder), latent.double()), rtol=1e-5, atol=1e-6
    )


def test_the_published_sizes_are_met() -> None:
    with torch.device("meta"):
        encoder, decoder = DalleEncoder(8192), DalleDecoder(num_codes=8192)
    assert sum(p.numel() for p in encoder.parameters()) == 53_786_240
    assert sum(p.numel() for p in decoder.parameters()) == 43_829_766


def test_names_and_shapes_are_those_of_the_released_weights() -> None:
    with torch.device("meta"):
        encoder, decoder = DalleEncoder(8192), DalleDecoder(num_codes=8192)
    shapes = {name: tuple(w.shape) for name, w in encoder.state_dict().items()}
    assert shapes["blocks.input.w"] == (256, 3, 7, 7)
    assert shapes["blocks.group_1.block_1.res_path.conv_1.w"] == (64, 256, 3, 3)
    assert shapes["blocks.group_1.block_1.res_path.conv_4.w"] == (256, 64, 1, 1)
    assert "blocks.group_1.block_1.id_path.w" not in shapes
    assert shapes["blocks.group_2.block_1.id_path.w"] == (512, 256, 1, 1)
    assert shapes["blocks.output.conv.b"] == (8192,)
    shapes = {name: tuple(w.shape) for name, w in decoder.state_dict().items()}
    assert shapes["blocks.input.w"] == (128, 8192, 1, 1)
    assert shapes["blocks.group_1.block_1.id_path.w"] == (2048, 128, 1, 1)
    assert shapes["blocks.group_1.block_1.res_path.conv_1.w"] == (512, 128, 1, 1)
    assert shapes["blocks.group_1.block_1.res_path.conv_4.w"] == (2048, 512, 3, 3)
    assert shapes["blocks.output.conv.w"] == (6, 256, 1, 1)


def test_a_map_of_one_hot_codes_reads_the_codebook() -> None:
    torch.manual_seed(0)
    whole = DalleDecoder(6, WIDTH, BLOCKS, CODE_WIDTH, CODES)
    body = DalleDecoder(6, WIDTH, BLOCKS, CODE_WIDTH)
    state = whole.state_dict()
    codebook = state.pop("blocks.input.w")[:, :, 0, 0].T + state.pop("blocks.input.b")
    body.load_state_dict(state)
    codes = torch.randint(CODES, (1, 2, 3))
    one_hot = F.one_hot(codes, CODES).movedim(-1, 1).float()
    torch.testing.assert_close(whole(one_hot), body(codebook[codes].movedim(-1, 1)))


@pytest.mark.parametrize("width", [0, 6])
def test_a_width_without_a_quarter_is_refused(width: int) -> None:
    with pytest.raises(ValueError, match=rf"width of {width} has no quarter.*multiple of 4"):
        DalleEncoder(8, width)
    with pytest.raises(ValueError, match="multiple of 4"):
        DalleDecoder(6, width)
