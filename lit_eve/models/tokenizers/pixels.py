"""Pixels as the encoder sees them and as the decoder's outputs stand for them.

Shapes: B images, C output channels, H/W pixels.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

MARGIN = 0.1
"""How far the logit-Laplace keeps its values from 0 and 1, where its density has poles."""


class PixelSpace(Protocol):
    """The way from pixels in [0, 1] to the model's numbers and back."""

    channels: int
    """C, what the decoder puts out."""

    def to_model(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) in [0, 1] -> what the encoder reads and the likelihood explains."""

    def to_signed(self, outputs: Tensor) -> Tensor:
        """Decoder outputs (B, C, H, W) -> (B, 3, H, W) around [-1, 1], unclamped: for gradients."""

    def to_pixels(self, outputs: Tensor) -> Tensor:
        """Decoder outputs (B, C, H, W) -> the pixels they stand for, in [0, 1]."""


class LogitLaplacePixels:
    """For the logit-Laplace: inputs in [0.1, 0.9]; outputs are three means and three log-scales.

    Source:
        Ramesh et al. 2021, arXiv:2102.12092, A.3 (phi and its inverse; log-scales are not used to
        reconstruct).
    """

    channels = 6

    def to_model(self, pixels: Tensor) -> Tensor:
        """phi(x) = (1 - 2 * 0.1) * x + 0.1."""
        return (1 - 2 * MARGIN) * pixels + MARGIN

    def to_signed(self, outputs: Tensor) -> Tensor:
        """The inverse of phi at the sigmoid of the mean, from [0, 1] to [-1, 1]."""
        return 2 * self._unmapped(outputs) - 1

    def to_pixels(self, outputs: Tensor) -> Tensor:
        """The inverse of phi at the sigmoid of the mean, clamped to [0, 1]."""
        return self._unmapped(outputs).clamp(0, 1)

    def _unmapped(self, outputs: Tensor) -> Tensor:
        return (torch.sigmoid(outputs[:, :3]) - MARGIN) / (1 - 2 * MARGIN)  # (B, 3, H, W)


class PlainPixels:
    """For L1 and L2: -1 to 1 in, the same out."""

    channels = 3

    def to_model(self, pixels: Tensor) -> Tensor:
        """[0, 1] -> [-1, 1]."""
        return 2 * pixels - 1

    def to_signed(self, outputs: Tensor) -> Tensor:
        """As they are."""
        return outputs

    def to_pixels(self, outputs: Tensor) -> Tensor:
        """[-1, 1] -> [0, 1], clamped."""
        return ((outputs + 1) / 2).clamp(0, 1)


def check_pixels(pixels: Tensor, stride: int) -> None:
    """Stop on images that no tokenizer of this stride can take.

    Looks at every value, so it belongs where that costs nothing: before images go to the device.

    Raises:
        ValueError: if the batch is empty, no image batch, of a size the stride does not divide, or
            has values outside [0, 1] or that are not numbers.
    """
    shape = tuple(pixels.shape)
    if pixels.ndim != 4 or shape[1] != 3 or not pixels.is_floating_point():
        raise ValueError(
            f"a {pixels.dtype} tensor of shape {shape} is no batch of images: floating point "
            "(images, 3, height, width) in [0, 1] is needed. Divide bytes by 255."
        )
    if pixels.numel() == 0:
        raise ValueError(f"a batch of shape {shape} is empty: drop empty batches in the loader.")
    check_size(shape[2], shape[3], stride)
    low, high = (float(bound) for bound in pixels.aminmax())
    if not (low >= 0 and high <= 1):  # also when they are not numbers
        raise ValueError(
            f"pixels go from {low} to {high}, but 0 to 1 is needed: bytes are divided by 255, "
            "normalised images are brought back, and NaN means that a file was decoded wrongly."
        )


def check_size(height: int, width: int, stride: int) -> None:
    """Stop on a size that does not give whole cells.

    Raises:
        ValueError: with the nearest size that does.
    """
    if height % stride or width % stride:
        nearest = [max(stride, round(side / stride) * stride) for side in (height, width)]
        raise ValueError(
            f"images of {height} x {width} pixels do not divide into cells of {stride} x {stride}: "
            f"resize or crop them to multiples of {stride}, e.g. {nearest[0]} x {nearest[1]}."
        )
