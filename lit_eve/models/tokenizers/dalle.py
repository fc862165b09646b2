"""DALL-E's encoder and decoder, with the names and shapes of the released parameters.

Shapes: B images, K codes, H/W pixels, D width of a code vector.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

GROUPS = 4
STRIDE = 8
"""Pixels a side of one cell: three of the four groups are followed by a halving."""


class Convolution(nn.Module):
    """A convolution that keeps the size, with parameters `w` and `b`.

    Args:
        in_channels: channels that come in.
        out_channels: channels that go out.
        kernel: side of the kernel, odd.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.empty(out_channels, in_channels, kernel, kernel))
        self.b = nn.Parameter(torch.empty(out_channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Normal with variance 1 / inputs, biases 0."""
        nn.init.normal_(self.w, std=self.w[0].numel() ** -0.5)
        nn.init.zeros_(self.b)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, H, W)."""
        return F.conv2d(x, self.w, self.b, padding=self.w.shape[-1] // 2)


class Block(nn.Module):
    """A bottleneck whose output is scaled down before it is added: `post_gain`.

    Args:
        in_channels: channels that come in.
        out_channels: channels that go out, a multiple of 4.
        kernels: of the four convolutions.
        post_gain: what the residual path is multiplied by.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernels: tuple[int, ...], post_gain: float
    ) -> None:
        super().__init__()
        self.post_gain = post_gain
        same = in_channels == out_channels
        self.id_path = nn.Identity() if same else Convolution(in_channels, out_channels, 1)
        hidden = out_channels // 4
        widths = [in_channels, hidden, hidden, hidden, out_channels]
        layers: list[tuple[str, nn.Module]] = []
        for number, kernel in enumerate(kernels, 1):
            layers.append((f"relu_{number}", nn.ReLU()))
            convolution = Convolution(widths[number - 1], widths[number], kernel)
            layers.append((f"conv_{number}", convolution))
        self.res_path = nn.Sequential(OrderedDict(layers))

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, H, W)."""
        identity: Tensor = self.id_path(x)
        residual: Tensor = self.res_path(x)
        return identity + self.post_gain * residual


class DalleEncoder(nn.Module):
    """Image to the scores of all codes: 8x down, 1x1 convolution at the end.

    The residual paths are scaled by 1 / (number of blocks) ** 2, which keeps the signal's size at
    the start of training.

    Args:
        out_channels: K.
        width: channels of the first group; the others have 2, 4 and 8 times as many.
        blocks: per group.
        in_channels: channels of the image.

    Source:
        Ramesh et al. 2021, arXiv:2102.12092, A.1, and the released code. The published size is
        width 256, 2 blocks, 8192 codes: 53,786,240 parameters.
    """

    def __init__(
        self, out_channels: int, width: int = 256, blocks: int = 2, in_channels: int = 3
    ) -> None:
        super().__init__()
        _check_width(width)
        self.in_channels, self.out_channels, self.stride = in_channels, out_channels, STRIDE
        gain = 1 / (GROUPS * blocks) ** 2
        widths = [width, width, 2 * width, 4 * width, 8 * width]
        layers: list[tuple[str, nn.Module]] = [("input", Convolution(in_channels, width, 7))]
        layers += _groups(widths, blocks, (3, 3, 3, 1), gain, lambda: nn.MaxPool2d(2))
        layers.append(("output", _output(widths[-1], out_channels)))
        self.blocks = nn.Sequential(OrderedDict(layers))

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, K, H / 8, W / 8)."""
        scores: Tensor = self.blocks(image)
        return scores


class DalleDecoder(nn.Module):
    """Code vectors, or a map of code weights, to an image: 8x up by nearest neighbours.

    The released decoder begins with a 1x1 convolution from K channels: on a map of code weights it
    is the codebook. Inside a tokenizer the quantizer holds the codebook, so that hard codes are
    looked up and not multiplied, and the decoder begins behind it.

    Args:
        out_channels: channels of the image's likelihood; 6 for logit-Laplace.
        width: channels of the last group; the ones before it have 2, 4 and 8 times as many.
        blocks: per group.
        code_width: D, width of a code vector, 128 as published.
        num_codes: K, to begin with the codebook as released; None to take code vectors.

    Source:
        As `DalleEncoder`: 43,829,766 parameters with the codebook of 8192 codes.
    """

    def __init__(
        self,
        out_channels: int = 6,
        width: int = 256,
        blocks: int = 2,
        code_width: int = 128,
        num_codes: int | None = None,
    ) -> None:
        super().__init__()
        _check_width(width)
        self.in_channels = code_width if num_codes is None else num_codes
        self.out_channels, self.stride = out_channels, STRIDE
        gain = 1 / (GROUPS * blocks) ** 2
        widths = [code_width, 8 * width, 4 * width, 2 * width, width]
        layers: list[tuple[str, nn.Module]] = []
        if num_codes is not None:
            layers.append(("input", Convolution(num_codes, code_width, 1)))
        layers += _groups(widths, blocks, (1, 3, 3, 3), gain, lambda: nn.Upsample(scale_factor=2))
        layers.append(("output", _output(width, out_channels)))
        self.blocks = nn.Sequential(OrderedDict(layers))

    def forward(self, latent: Tensor) -> Tensor:
        """(B, D or K, h, w) -> (B, C, 8 h, 8 w)."""
        image: Tensor = self.blocks(latent)
        return image

    @property
    def last_weight(self) -> nn.Parameter:
        """The weight that everything in the image goes through last."""
        return self.get_parameter("blocks.output.conv.w")


def _groups(
    widths: list[int],
    blocks: int,
    kernels: tuple[int, ...],
    gain: float,
    resample: Callable[[], nn.Module],
) -> list[tuple[str, nn.Module]]:
    """Four groups, `widths[i]` to `widths[i + 1]`, resampled after each but the last."""
    groups: list[tuple[str, nn.Module]] = []
    for group in range(GROUPS):
        into, out = widths[group], widths[group + 1]
        layers: list[tuple[str, nn.Module]] = [
            (f"block_{n + 1}", Block(into if n == 0 else out, out, kernels, gain))
            for n in range(blocks)
        ]
        if group < GROUPS - 1:
            layers.append(("pool" if kernels[0] == 3 else "upsample", resample()))
        groups.append((f"group_{group + 1}", nn.Sequential(OrderedDict(layers))))
    return groups


def _output(in_channels: int, out_channels: int) -> nn.Module:
    layers = OrderedDict(relu=nn.ReLU(), conv=Convolution(in_channels, out_channels, 1))
    return nn.Sequential(layers)


def _check_width(width: int) -> None:
    if width < 4 or width % 4:
        raise ValueError(
            f"a DALL-E width of {width} has no quarter for the bottlenecks: "
            "give a multiple of 4; 256 as published."
        )
