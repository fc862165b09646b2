"""A plain convolutional encoder and decoder, as in VQ-VAE and VQGAN; any number of halvings.

Shapes: B images, C channels, H/W cells of a feature map.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from lit_eve.models.tokenizers.choices import check_choice

Norm = Literal["group", "none"]

SILU_POWER = 0.356
"""Mean square of SiLU of a standard normal: what comes out of the last norm."""


@dataclass(frozen=True)
class Layout:
    """Size of a convolutional encoder or decoder; both may have the same or their own.

    Raises:
        ValueError: if a number is impossible or the norm is unknown.
    """

    width: int = 128
    """Channels of the finest level."""
    multipliers: tuple[int, ...] = (1, 1, 2, 2, 4)
    """Channels of every level in widths, finest first; the image is halved between two levels."""
    blocks: int = 2
    """Residual blocks of a level; the decoder has one more, as VQGAN's."""
    attention: tuple[int, ...] = ()
    """Levels with self-attention after each block: 0 the finest, len(multipliers) - 1 the last."""
    norm: Norm = "group"

    def __post_init__(self) -> None:
        check_choice("the layout's norm", self.norm, Norm)
        if not self.multipliers or min(self.multipliers) < 1 or min(self.width, self.blocks) < 1:
            raise ValueError(
                f"{self} is no encoder: width, blocks and every multiplier are at least 1, "
                "and there is at least one level."
            )
        last = len(self.multipliers) - 1
        for level in self.attention:
            if not 0 <= level <= last:
                raise ValueError(
                    f"attention at level {level}, but the levels are 0 (finest) to {last}: give "
                    f"levels in that range, e.g. [{last}]."
                )

    @property
    def stride(self) -> int:
        """Pixels a side of one cell of the latent."""
        return 1 << (len(self.multipliers) - 1)


class ConvolutionalEncoder(nn.Module):
    """Image to latent.

    Args:
        out_channels: channels of the latent.
        layout: its size.
        in_channels: channels of the image.
        spread: standard deviation that the latent starts with. At 1, three times the variance of
            torch's own start of a convolution, all of FSQ's levels are in use from the first step.

    Source:
        Esser et al. 2021, arXiv:2012.09841, and its code; the last convolution is 1x1, as in
        DALL-E, since with thousands of scores a 3x3 would cost more than all before it.
    """

    def __init__(
        self, out_channels: int, layout: Layout, in_channels: int = 3, spread: float = 1.0
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.stride = in_channels, out_channels, layout.stride
        channels = [layout.width * multiplier for multiplier in layout.multipliers]
        layers: list[nn.Module] = [nn.Conv2d(in_channels, channels[0], 3, padding=1)]
        current = channels[0]
        for level, width in enumerate(channels):
            if level > 0:
                layers.append(Halve(current))
            layers += _blocks(current, width, layout, level, layout.blocks)
            current = width
        layers += _middle(current, layout)
        layers += [_normalisation(current, layout.norm), nn.SiLU()]
        last = nn.Conv2d(current, out_channels, 1)
        nn.init.normal_(last.weight, std=spread * (SILU_POWER * current) ** -0.5)
        assert last.bias is not None  # as asked
        nn.init.zeros_(last.bias)
        self.layers = nn.Sequential(*layers, last)

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, out, H / stride, W / stride)."""
        latent: Tensor = self.layers(image)
        return latent


class ConvolutionalDecoder(nn.Module):
    """Latent to image: the encoder's mirror, with nearest upsampling.

    Args:
        in_channels: channels of the latent.
        layout: its size, as the encoder's.
        out_channels: channels of the image's likelihood.
    """

    def __init__(self, in_channels: int, layout: Layout, out_channels: int = 3) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.stride = in_channels, out_channels, layout.stride
        channels = [layout.width * multiplier for multiplier in layout.multipliers]
        current = channels[-1]
        layers: list[nn.Module] = [nn.Conv2d(in_channels, current, 1)]
        layers += _middle(current, layout)
        for level in reversed(range(len(channels))):
            layers += _blocks(current, channels[level], layout, level, layout.blocks + 1)
            current = channels[level]
            if level > 0:
                layers.append(Double(current))
        layers += [_normalisation(current, layout.norm), nn.SiLU()]
        layers.append(nn.Conv2d(current, out_channels, 3, padding=1))
        self.layers = nn.Sequential(*layers)

    def forward(self, latent: Tensor) -> Tensor:
        """(B, in, h, w) -> (B, out, stride h, stride w)."""
        image: Tensor = self.layers(latent)
        return image

    @property
    def last_weight(self) -> nn.Parameter:
        """The weight that everything in the image goes through last."""
        return self.get_parameter(f"layers.{len(self.layers) - 1}.weight")


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, each after norm and SiLU, around a shortcut.

    Args:
        in_channels: channels that come in.
        out_channels: channels that go out.
        norm: `group` or `none`.
    """

    def __init__(self, in_channels: int, out_channels: int, norm: Norm) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            _normalisation(in_channels, norm),
            nn.SiLU(),
            nn.Conv2d(in_channels, out_channels, 3, padding=1),
            _normalisation(out_channels, norm),
            nn.SiLU(),
            nn.Conv2d(out_channels, out_channels, 3, padding=1),
        )
        same = in_channels == out_channels
        self.shortcut = nn.Identity() if same else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, H, W)."""
        shortcut: Tensor = self.shortcut(x)
        residual: Tensor = self.residual(x)
        return shortcut + residual


class SpatialAttention(nn.Module):
    """One-head self-attention over all cells, added to what came in.

    Args:
        channels: of the feature map.
        norm: `group` or `none`.
    """

    def __init__(self, channels: int, norm: Norm) -> None:
        super().__init__()
        self.norm = _normalisation(channels, norm)
        self.project_in = nn.Conv2d(channels, 3 * channels, 1)
        self.project_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same."""
        query, key, value = self.project_in(self.norm(x)).flatten(2).mT.chunk(3, dim=2)
        mixed = F.scaled_dot_product_attention(query, key, value)  # (B, H * W, C)
        added: Tensor = x + self.project_out(mixed.mT.reshape(x.shape))
        return added


class Halve(nn.Module):
    """Half the size by a convolution of stride 2, padded right and below, as VQGAN's.

    Args:
        channels: of the feature map.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H / 2, W / 2)."""
        halved: Tensor = self.convolution(F.pad(x, (0, 1, 0, 1)))
        return halved


class Double(nn.Module):
    """Twice the size by nearest neighbours and a convolution.

    Args:
        channels: of the feature map.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, 2 H, 2 W)."""
        doubled: Tensor = self.convolution(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return doubled


def _blocks(
    current: int, width: int, layout: Layout, level: int, count: int
) -> Sequence[nn.Module]:
    layers: list[nn.Module] = []
    for _ in range(count):
        layers.append(ResidualBlock(current, width, layout.norm))
        if level in layout.attention:
            layers.append(SpatialAttention(width, layout.norm))
        current = width
    return layers


def _middle(channels: int, layout: Layout) -> Sequence[nn.Module]:
    """At the coarsest level: two blocks, with attention between them if it has any."""
    first, second = (ResidualBlock(channels, channels, layout.norm) for _ in range(2))
    if len(layout.multipliers) - 1 in layout.attention:
        return [first, SpatialAttention(channels, layout.norm), second]
    return [first, second]


def _normalisation(channels: int, norm: Norm) -> nn.Module:
    """Group norm over the most groups, up to VQGAN's 32, that have four channels or more each.

    Were a channel normalised alone, a picture's brightness could not pass through the last norm.
    """
    if norm == "none":
        return nn.Identity()
    fitting = (n for n in (32, 16, 8, 4, 2) if channels % n == 0 and channels >= 4 * n)
    return nn.GroupNorm(next(fitting, 1), channels, eps=1e-6)
