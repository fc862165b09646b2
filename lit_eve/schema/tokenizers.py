"""Image tokenizers: picture -> grid of codes -> picture."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from lit_eve.schema.base import (
    Finding,
    Fraction,
    FromList,
    NonNegative,
    Positive,
    PositiveReal,
    Strict,
)
from lit_eve.schema.images import Native, SizeOrCrop
from lit_eve.schema.quantizers import Quantizer
from lit_eve.schema.units import StepsFromZero


class DalleEncoder(Strict):
    """DALL-E's residual encoder and decoder: 8 times down."""

    type: Literal["dalle"]
    width: Annotated[int, Field(ge=4, multiple_of=4)] = 256
    """Channels of the first group; the last has eight times as many."""
    blocks: Positive = 2
    """Residual blocks of each of the four groups."""

    @property
    def stride(self) -> int:
        """Pixels a side for one code."""
        return 8


class ConvolutionalEncoder(Strict):
    """A plain encoder and decoder in the style of VQGAN, halving the grid between its levels."""

    type: Literal["convolutional"]
    width: Positive = 128
    """Channels of the first level."""
    multipliers: Annotated[FromList[tuple[Positive, ...]], Field(min_length=1)] = (1, 1, 2, 2, 4)
    """Channels of each level, as multiples of `width`; one level halves nothing."""
    blocks: Positive = 2
    """Residual blocks of each level."""
    norm: Literal["group", "none"] = "group"
    """Normalisation inside the blocks."""
    attention: FromList[tuple[NonNegative, ...]] = ()
    """Levels with self-attention: 0 is the finest."""

    def findings(self) -> Iterator[Finding]:
        """Attention is at levels there are."""
        for index, level in enumerate(self.attention):
            if level >= len(self.multipliers):
                yield Finding(
                    ("attention", index),
                    f"there is no level {level} among {len(self.multipliers)}",
                    f"Choose from 0 (finest) to {len(self.multipliers) - 1}.",
                    (("multipliers",),),
                )

    @property
    def stride(self) -> int:
        """Pixels a side for one code."""
        return int(2 ** (len(self.multipliers) - 1))


Encoder = Annotated[DalleEncoder | ConvolutionalEncoder, Field(discriminator="type")]
"""The encoder and, mirrored, the decoder."""


class Perceptual(Strict):
    """LPIPS: distance of features of a network trained on ImageNet, whose weights are needed."""

    backbone: Literal["vgg", "alex"] = "vgg"
    """That network."""
    weight: PositiveReal = 1.0
    """Weight of the distance."""


class Discriminator(Strict):
    """A network that tells pictures from reconstructions, patch by patch (VQGAN)."""

    width: Positive = 64
    """Channels after its first convolution."""
    layers: Positive = 3
    """Convolutions that halve the picture; each side needs 3 times 2 to the power of this."""
    weight: PositiveReal = 0.8
    """Weight of the loss of not fooling it, besides the adaptive one."""
    starts: StepsFromZero = 0
    """Optimizer step from which both its losses count."""


class TokenizerImages(Strict):
    """Pictures as the tokenizer sees them: pixels from 0 to 1."""

    size: SizeOrCrop = Native(type="native")
    """Size policy: native, longest_edge, area or square; or crop, cut at random in training."""


class ImageTokenizer(Strict):
    """A model that turns pictures into codes and back."""

    parts: ClassVar[tuple[str, ...]] = ("encoder", "quantizer", "decoder", "discriminator")

    type: Literal["tokenizer"]
    encoder: Encoder
    """Encoder and, mirrored, decoder: dalle or convolutional."""
    quantizer: Quantizer
    """gumbel, vq, fsq, lfq, residual, multi_scale or gaussian."""
    likelihood: Literal["logit_laplace", "l1", "l2"] = "logit_laplace"
    """What the decoder predicts of a pixel: logit_laplace (DALL-E), l1 or l2."""
    least_scale: PositiveReal | None = None
    """Added to logit_laplace's b, for pictures with flat areas; the paper has none."""
    perceptual: Perceptual | None = None
    """Adds LPIPS to the likelihood."""
    discriminator: Discriminator | None = None
    """Adds an adversarial loss; a part that must be trained as well."""
    images: TokenizerImages = TokenizerImages()
    """Sizes of the pictures."""
    ema: Fraction | None = None
    """Decay of the averaged weights that are evaluated and exported; none when left out."""

    def findings(self) -> Iterator[Finding]:
        """Only one likelihood has a scale."""
        if self.least_scale is not None and self.likelihood != "logit_laplace":
            yield Finding(
                ("least_scale",),
                f"{self.likelihood} has no scale that could be held up",
                "Leave it out, or take likelihood: logit_laplace.",
                (("likelihood",),),
            )

    @property
    def cell(self) -> int:
        """Side in pixels of the square that becomes one code."""
        return self.encoder.stride
