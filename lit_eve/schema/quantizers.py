"""From a latent grid to codes: the codebooks of the image tokenizers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from lit_eve.schema.base import Finding, Fraction, FromList, Positive, PositiveReal, Strict
from lit_eve.schema.schedules import Number, PositiveNumber, Schedule
from lit_eve.schema.units import Span

Weight = Annotated[float, Field(ge=0)]


class Gumbel(Strict):
    """A relaxed categorical codebook (DALL-E's dVAE)."""

    type: Literal["gumbel"]
    codes: Positive = 8192
    """Number of codes."""
    width: Positive = 128
    """Numbers a code stands for: what the decoder reads."""
    temperature: PositiveNumber = Schedule(
        schedule="cosine", start=1.0, end=1 / 16, over=Span(150_000, "steps")
    )
    """Temperature of the relaxation; 1/16 closes the gap to hard codes."""
    straight_through: bool = False
    """Use hard codes in the forward pass and relaxed ones in the backward pass."""
    kl: Number = Schedule(schedule="cosine", start=0.0, end=6.6, over=Span(5_000, "steps"))
    """Weight of the divergence to the uniform prior, as the paper counts it (its beta)."""

    def findings(self) -> Iterator[Finding]:
        """A relaxation has a temperature above 0."""
        if isinstance(self.temperature, Schedule):
            for key, value in (("from", self.temperature.start), ("to", self.temperature.end)):
                if value == 0:
                    yield Finding(
                        ("temperature", key),
                        "a relaxation of temperature 0 has no gradient",
                        "Choose a number above 0: the paper ends at 0.0625.",
                    )


class AverageUpdate(Strict):
    """Codes follow a moving average of the latents that chose them."""

    type: Literal["ema"]
    decay: Fraction = 0.99
    """Share of the old average that is kept each step."""


class GradientUpdate(Strict):
    """Codes are learned by a loss of their own."""

    type: Literal["loss"]
    weight: PositiveReal = 1.0
    """Weight of the codebook loss."""


Update = Annotated[AverageUpdate | GradientUpdate, Field(discriminator="type")]


class Vector(Strict):
    """Nearest-code quantization (VQ-VAE)."""

    type: Literal["vq"]
    codes: Positive = 8192
    """Number of codes."""
    width: Positive = 256
    """Numbers of a code."""
    distance: Literal["euclidean", "cosine"] = "euclidean"
    """What nearest means."""
    update: Update = AverageUpdate(type="ema")
    """How codes learn: `ema` or `loss`."""
    gradient: Literal["straight_through", "rotation"] = "straight_through"
    """How the gradient passes the choice of a code (rotation: arXiv:2410.06424)."""
    initial: Literal["random", "kmeans"] = "kmeans"
    """Where codes start: at random, or at the clusters of the first batch."""
    commitment: Weight = 0.25
    """Weight of the loss that keeps latents near their codes."""
    revive: Fraction = 0.03
    """A code used less than this share of its fair use is moved to a latent; 0: never."""


class FiniteScalar(Strict):
    """Every channel rounded to a few levels (FSQ): no codebook to collapse."""

    type: Literal["fsq"]
    levels: Annotated[FromList[tuple[Annotated[int, Field(ge=2)], ...]], Field(min_length=1)] = (
        8,
        8,
        8,
        6,
        5,
    )
    """Levels of each channel; their product is the number of codes."""


class LookupFree(Strict):
    """Every channel reduced to its sign (LFQ): two to the power of `bits` codes."""

    type: Literal["lfq"]
    bits: Annotated[int, Field(ge=1, le=30)] = 18
    """Channels, and so bits of a code."""
    entropy: Weight = 0.1
    """Weight of the entropy loss: every token sure, all tokens together diverse."""
    diversity: Weight = 1.0
    """Weight of the diversity inside the entropy loss."""
    commitment: Weight = 0.25
    """Weight of the loss that keeps latents near their codes."""


class Residual(Strict):
    """Several quantizers one after another, each for what the one before left over."""

    type: Literal["residual"]
    quantizer: Annotated[Vector | FiniteScalar | LookupFree, Field(discriminator="type")]
    """The quantizer that is stacked: vq, fsq or lfq."""
    depth: Annotated[int, Field(ge=2)] = 4
    """How many of them."""
    shared: bool = False
    """Use one codebook at every depth."""

    def findings(self) -> Iterator[Finding]:
        """Only a codebook can be shared."""
        if self.shared and not isinstance(self.quantizer, Vector):
            yield Finding(
                ("shared",),
                f"{self.quantizer.type} has no codebook that could be shared",
                "Take `shared` out, or stack vq.",
                (("quantizer",),),
            )


class MultiScale(Strict):
    """Residual quantization from coarse grids to the full one, one codebook (VAR)."""

    type: Literal["multi_scale"]
    codes: Positive = 4096
    """Number of codes."""
    width: Positive = 32
    """Numbers of a code."""
    scales: Annotated[
        FromList[tuple[FromList[tuple[Positive, Positive]], ...]], Field(min_length=1)
    ] = tuple((n, n) for n in (1, 2, 3, 4, 5, 6, 8, 10, 13, 16))
    """Rows and columns of each grid, coarse to fine; the last is the encoder's own grid."""
    convolutions: Positive = 4
    """Smoothing convolutions, each shared by neighbouring scales."""
    commitment: Weight = 0.25
    """Weight of the loss that keeps latents near their codes."""


class Gaussian(Strict):
    """A normal distribution instead of codes: the continuous baseline (VAE)."""

    type: Literal["gaussian"]
    width: Positive = 4
    """Channels of the latent."""
    kl: Number = 1e-6
    """Weight of the divergence to the standard normal."""


Quantizer = Annotated[
    Gumbel | Vector | FiniteScalar | LookupFree | Residual | MultiScale | Gaussian,
    Field(discriminator="type"),
]
"""A quantizer."""
