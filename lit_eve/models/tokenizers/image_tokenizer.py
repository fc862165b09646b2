"""Encoder, quantizer and decoder as one: images to codes and back.

Shapes: B images, H/W pixels, S stride, h/w = H/S, W/S cells, C decoder outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, overload

import torch
from torch import Tensor, nn

from lit_eve.models.tokenizers.discriminator import PatchDiscriminator
from lit_eve.models.tokenizers.gumbel import GumbelQuantizer
from lit_eve.models.tokenizers.pixels import PixelSpace, check_pixels, check_size
from lit_eve.models.tokenizers.quantizer import Grid, Quantized, Quantizer


class Coder(Protocol):
    """What encoders and decoders state about themselves."""

    in_channels: int
    out_channels: int
    stride: int

    def __call__(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, H / S, W / S), or the other way round."""


class Decoder(Coder, Protocol):
    """A decoder, which says where its outputs come from."""

    @property
    def last_weight(self) -> nn.Parameter:
        """The weight that everything in the image goes through last."""


@dataclass(frozen=True)
class Reconstruction:
    """An image gone through the bottleneck."""

    outputs: Tensor
    """(B, C, H, W), what the likelihood reads."""
    target: Tensor
    """(B, 3, H, W), the image in the model's numbers: what the likelihood explains."""
    quantized: Quantized


class ImageTokenizer(nn.Module):
    """An image tokenizer. Takes images of any size whose sides the stride divides.

    Args:
        encoder: image to latent.
        quantizer: latent to codes.
        decoder: quantized latent to outputs.
        pixels: what encoder and decoder mean by their numbers.
        discriminator: only for training with an adversarial loss; it is no part of the tokenizer
            that is used and exported.

    Raises:
        ValueError: if the parts do not fit each other.
    """

    encoder: Coder
    decoder: Decoder

    def __init__(
        self,
        encoder: Coder,
        quantizer: Quantizer,
        decoder: Decoder,
        pixels: PixelSpace,
        discriminator: PatchDiscriminator | None = None,
    ) -> None:
        super().__init__()
        _check_fit("encoder.out_channels", encoder.out_channels, quantizer.in_channels)
        _check_fit("decoder.in_channels", decoder.in_channels, quantizer.out_channels)
        _check_fit("decoder.out_channels", decoder.out_channels, pixels.channels)
        _check_fit("decoder.stride", decoder.stride, encoder.stride)
        self.encoder = encoder
        self.quantizer = quantizer
        self.decoder = decoder
        self.pixels = pixels
        self.discriminator = discriminator

    @property
    def relaxes(self) -> bool:
        """Whether training mixes codes, so that relaxed and hard reconstructions differ."""
        return isinstance(self.quantizer, GumbelQuantizer)

    @property
    def stride(self) -> int:
        """Pixels a side of one cell."""
        return self.encoder.stride

    def forward(self, pixels: Tensor) -> Reconstruction:
        """Through the bottleneck and back, as the mode says: training samples and learns.

        Args:
            pixels: (B, 3, H, W) in [0, 1]; `check_pixels` says what is needed.

        Raises:
            ValueError: if the stride does not divide the size.
        """
        check_size(pixels.shape[-2], pixels.shape[-1], self.stride)
        target = self.pixels.to_model(pixels)
        quantized = self.quantizer(self.latent(target))
        return Reconstruction(self.decoder(quantized.latent), target, quantized)

    def latent(self, target: Tensor) -> Tensor:
        """The encoder's output, (B, D, h, w), for an image in the model's numbers.

        Channels last, so that a token's channels lie together for the quantizer.
        """
        return self.encoder(target.contiguous(memory_format=torch.channels_last))

    @overload
    def encode(self, images: Tensor) -> Tensor: ...
    @overload
    def encode(self, images: Sequence[Tensor]) -> list[Tensor]: ...
    @torch.no_grad()
    def encode(self, images: Tensor | Sequence[Tensor]) -> Tensor | list[Tensor]:
        """Images to codes, the same whatever the mode.

        Args:
            images: (B, 3, H, W) in [0, 1], or a list of (3, H, W) of any sizes.

        Returns:
            Codes of all images, `Quantized.codes`; for a list a list, without the first axis.

        Raises:
            ValueError: if an image cannot be encoded, or the tokenizer is continuous.
        """
        if not isinstance(images, Tensor):
            return _by_shape(self.encode, [(image, None) for image in images])
        check_pixels(images, self.stride)
        with evaluating(self):
            quantized: Quantized = self.quantizer(self._latent_of(images))
        if quantized.codes is None:
            raise ValueError(
                f"{type(self.quantizer).__name__} is continuous, so there are no codes: "
                "use `reconstruct`, or a tokenizer with a discrete quantizer."
            )
        return quantized.codes

    @overload
    def decode(self, codes: Tensor, grid: Grid | None = None) -> Tensor: ...
    @overload
    def decode(
        self, codes: Sequence[Tensor], grid: Sequence[Grid] | None = None
    ) -> list[Tensor]: ...
    @torch.no_grad()
    def decode(self, codes: Tensor | Sequence[Tensor], grid: Any = None) -> Tensor | list[Tensor]:
        """Codes to images, the same whatever the mode.

        Args:
            codes: as `encode` returns them.
            grid: (h, w), or one for each entry of a list: for multi-scale codes, whose shape does
                not say it.

        Returns:
            Pixels (B, 3, H, W) in [0, 1]; for a list a list of (3, H, W).

        Raises:
            ValueError: if a code is out of range or does not fit the grid, or there are none.
        """
        if isinstance(codes, Tensor):
            with evaluating(self):
                return self.pixels.to_pixels(self.decoder(self.quantizer.embed(codes, grid)))
        grids: Sequence[Any] = [None] * len(codes) if grid is None else grid
        if len(grids) != len(codes):
            raise ValueError(
                f"{len(grids)} grids for the codes of {len(codes)} images: give one for each, "
                "(rows, columns), in their order, or leave `grid` out."
            )
        return _by_shape(self.decode, list(zip(codes, grids, strict=True)))

    @torch.no_grad()
    def reconstruct(self, images: Tensor, relaxed: bool = False) -> Tensor:
        """Images through the bottleneck and back, the same whatever the mode.

        Args:
            images: (B, 3, H, W) in [0, 1].
            relaxed: through the random mixture that a Gumbel tokenizer trains on.

        Returns:
            Pixels, (B, 3, H, W) in [0, 1].
        """
        return self.pixels.to_pixels(self.outputs(images, relaxed))

    @torch.no_grad()
    def outputs(self, images: Tensor, relaxed: bool = False) -> Tensor:
        """Decoder outputs of `reconstruct`, (B, C, H, W).

        Raises:
            ValueError: if `relaxed` is asked of a quantizer that does not relax, or an image cannot
                be encoded.
        """
        check_pixels(images, self.stride)
        with evaluating(self):
            latent = self._latent_of(images)
            if not relaxed:
                return self.decoder(self.quantizer(latent).latent)
            if not isinstance(self.quantizer, GumbelQuantizer):
                raise ValueError(
                    f"{type(self.quantizer).__name__} has no relaxed codes: only the Gumbel "
                    "quantizer mixes them. Ask for hard reconstructions."
                )
            return self.decoder(self.quantizer.relax(latent))

    def _latent_of(self, images: Tensor) -> Tensor:
        """`latent` of pixels of any floating type: NumPy's are double, the weights are not."""
        weight = next(self.parameters())
        return self.latent(self.pixels.to_model(images.to(weight.dtype)))


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode inside, every module's own mode afterwards."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


def _by_shape(run: Callable[..., Tensor], items: Sequence[tuple[Tensor, Any]]) -> list[Tensor]:
    """Run tensors of one shape and grid together, and put the results back in order."""
    if not items:
        raise ValueError("an empty list holds nothing to encode or decode: give at least one.")
    foreign = next((item for item, _ in items if not isinstance(item, Tensor)), None)
    if foreign is not None:
        raise ValueError(
            f"a list of {type(foreign).__name__} cannot be encoded or decoded: tensors are needed. "
            "Turn arrays into tensors with torch.from_numpy."
        )
    groups: dict[tuple[torch.Size, Any], list[int]] = {}
    for number, (tensor, grid) in enumerate(items):
        groups.setdefault((tensor.shape, grid), []).append(number)
    results: dict[int, Tensor] = {}
    for (_, grid), numbers in groups.items():
        batch = torch.stack([items[number][0] for number in numbers])
        done = run(batch) if grid is None else run(batch, grid)
        results.update(zip(numbers, done, strict=True))
    return [results[number] for number in range(len(items))]


def _check_fit(name: str, is_: int, needed: int) -> None:
    if is_ != needed:
        raise ValueError(
            f"{name} is {is_}, but the parts of this tokenizer need {needed}: make them equal."
        )
