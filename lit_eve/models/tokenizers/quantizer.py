"""What every quantizer is: a latent in; its quantized latent, codes, losses and statistics out.

Shapes: B images, D channels, H/W cells of the grid, N = B * H * W tokens, K codes of a codebook.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

Grid = tuple[int, int]
"""Rows and columns of an image's latent."""


WHOLE = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
"""Types that codes may be kept in."""


@dataclass(frozen=True)
class Quantized:
    """What a quantizer makes of a latent."""

    latent: Tensor
    """(B, D, H, W), with the gradient the quantizer's estimator gives it."""
    codes: Tensor | None
    """int64, 0 to `num_codes` - 1: (B, H, W), or as the quantizer states; None if continuous."""
    losses: Mapping[str, Tensor]
    """Scalars by name, each already weighted: they are added to the reconstruction loss."""
    statistics: Mapping[str, Tensor]
    """Detached scalars by name, to be watched."""


class Quantizer(nn.Module, ABC):
    """A bottleneck between encoder and decoder.

    Everything inside is float32 (or wider) whatever the precision around it: autocast is switched
    off, and casting the module to a narrower type leaves its parameters and buffers alone. A code
    looked up in half precision is often the wrong code, and half precision has no room for the
    small changes of a moving average.

    Training mode samples and learns; evaluation mode is deterministic and changes nothing.

    Args:
        in_channels: channels of the latent that comes in.
        out_channels: channels of the quantized latent.
        num_codes: K, codes of one codebook; None if the latent stays continuous.
    """

    latent_spread: ClassVar[float] = 1.0
    """Standard deviation that a latent should start training with."""

    def __init__(self, in_channels: int, out_channels: int, num_codes: int | None) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.num_codes = num_codes

    def forward(self, latent: Tensor) -> Quantized:
        """Quantize a latent.

        Args:
            latent: (B, `in_channels`, H, W).

        Raises:
            ValueError: if the latent is empty or has other channels; in evaluation mode also if it
                holds what is no number. In training that would wait for the device in every step.
        """
        self._check_latent(latent)
        if not self.training:
            check_finite(latent)
        with torch.autocast(latent.device.type, enabled=False):
            quantized = self.quantize(latent.to(self._type_for(latent)))
        return replace(quantized, latent=quantized.latent.to(latent.dtype))

    def embed(self, codes: Tensor, grid: Grid | None = None) -> Tensor:
        """The quantized latent that codes stand for.

        Args:
            codes: as `Quantized.codes`, in any type of whole numbers.
            grid: rows and columns of the latent, for codes whose shape does not say it.

        Returns:
            (B, `out_channels`, H, W).

        Raises:
            ValueError: if a code is out of range or the codes do not fit the grid.
        """
        self.check_codes(codes)
        with torch.autocast(codes.device.type, enabled=False):
            return self.look_up(codes.long(), grid)

    @property
    def levels_of_codes(self) -> tuple[str, ...]:
        """Names of the stages or scales that codes come from, each to be watched on its own."""
        return ("all",) if self.num_codes is not None else ()

    def split(self, codes: Tensor, grid: Grid) -> dict[str, Tensor]:
        """The codes of each of `levels_of_codes`."""
        return {"all": codes}

    @abstractmethod
    def quantize(self, latent: Tensor) -> Quantized:
        """`forward` on a checked latent of at least float32, outside autocast."""

    @abstractmethod
    def look_up(self, codes: Tensor, grid: Grid | None) -> Tensor:
        """`embed` on codes that are in range."""

    def check_codes(self, codes: Tensor) -> None:
        """Stop on codes that no codebook entry stands for.

        Raises:
            ValueError: naming the first such code.
        """
        if self.num_codes is None:
            raise ValueError(
                f"{type(self).__name__} is continuous: its latents have no codes. "
                "Use a tokenizer with a discrete quantizer, or decode the latent itself."
            )
        if codes.dtype not in WHOLE or codes.numel() == 0:
            raise ValueError(
                f"codes of type {codes.dtype} and shape {tuple(codes.shape)} cannot be decoded: "
                "whole numbers are needed, at least one. Give them as `encode` returned them."
            )
        low, high = (int(bound) for bound in codes.aminmax())
        if low < 0 or high >= self.num_codes:
            wrong = low if low < 0 else high
            raise ValueError(
                f"code {wrong} is out of range: this codebook has the codes 0 to "
                f"{self.num_codes - 1}. Were the codes made by another tokenizer?"
            )

    def _type_for(self, latent: Tensor) -> torch.dtype:
        """What a latent is computed in: the type of the codes, or its own; float32 at least."""
        for own in chain(self.parameters(), self.buffers()):
            if own.is_floating_point():
                return torch.promote_types(own.dtype, torch.float32)
        return torch.promote_types(latent.dtype, torch.float32)

    def _check_latent(self, latent: Tensor) -> None:
        if latent.ndim != 4 or latent.shape[1] != self.in_channels:
            raise ValueError(
                f"a latent of shape {tuple(latent.shape)} does not fit {type(self).__name__}, "
                f"which takes (images, {self.in_channels}, rows, columns). "
                f"Make the encoder's out_channels {self.in_channels}."
            )
        if latent.numel() == 0:
            raise ValueError(
                f"a latent of shape {tuple(latent.shape)} is empty: there is nothing to quantize. "
                "Drop empty batches in the data loader."
            )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move with the model, but never to a type narrower than float32."""
        super()._apply(lambda tensor: _kept_wide(tensor, fn(tensor)), recurse)  # type: ignore[no-untyped-call]
        return self


def _kept_wide(before: Tensor, after: Tensor) -> Tensor:
    if before.is_floating_point() and after.dtype.itemsize < 4:
        return before.to(after.device)
    return after


def check_finite(latent: Tensor) -> None:
    """Stop on a latent that has no nearest code. Waits for the device.

    Raises:
        ValueError: saying how many numbers are none.
    """
    wrong = int((~latent.isfinite()).sum())
    if wrong:
        raise ValueError(
            f"{wrong} of the latent's {latent.numel()} numbers are infinite or NaN, so no code is "
            "nearest: the encoder's weights are broken, or its numbers leave half precision. Take "
            "an earlier checkpoint, lower the learning rate, or compute in float32."
        )


def to_tokens(latent: Tensor) -> Tensor:
    """(B, D, H, W) -> (N, D); free of copies if the latent is channels-last."""
    return latent.permute(0, 2, 3, 1).flatten(0, 2)


def to_grid(tokens: Tensor, shape: torch.Size) -> Tensor:
    """(N, D) -> (B, D, H, W), for a latent whose shape was (B, any, H, W)."""
    return tokens.view(shape[0], shape[2], shape[3], -1).permute(0, 3, 1, 2)


def check_spatial(codes: Tensor, grid: Grid | None) -> None:
    """Stop unless codes are (B, ..., H, W) and `grid`, if given, is their H x W.

    Raises:
        ValueError: naming both.
    """
    if codes.ndim < 3 or (grid is not None and tuple(grid) != tuple(codes.shape[-2:])):
        raise ValueError(
            f"codes of shape {tuple(codes.shape)} do not fit a grid of {grid}: "
            "(images, rows, columns) is needed. The shape of these codes already says their grid, "
            "so leave `grid` out."
        )
