"""From a latent grid to codes: the codebooks of the image tokenizers."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field

from lit_eve.schema.base import (
    Finding,
    Fraction,
    FromList,
    NonNegativeReal,
    Positive,
    PositiveReal,
    Strict,
)
from lit_eve.schema.schedules import Number, PositiveNumber, Schedule
from lit_eve.schema.units import Span

Distance = Literal["euclidean", "cosine"]
Start = Literal["random", "kmeans"]
Scale = FromList[tuple[Positive, Positive]]


class Gumbel(Strict):
    """A relaxed categorical codebook (DALL-E's dVAE)."""

    type: Literal["gumbel"]
    codes: Annotated[int, Field(ge=2)] = 8192
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
    codes: Annotated[int, Field(ge=2)] = 8192
    """Number of codes."""
    width: Positive = 256
    """Numbers of a code."""
    distance: Distance = "euclidean"
    """What nearest means."""
    update: Update = AverageUpdate(type="ema")
    """How codes learn: `ema` or `loss`."""
    gradient: Literal["straight_through", "rotation"] = "straight_through"
    """How the gradient passes the choice of a code (rotation: arXiv:2410.06424)."""
    initial: Start = "kmeans"
    """Where codes start: at random, or at the clusters of the first batch."""
    commitment: NonNegativeReal = 0.25
    """Weight of the loss that keeps latents near their codes."""
    revive: Fraction = 0.03
    """A code used less than this share of its fair use is moved to a latent; 0: never."""


class FiniteScalar(Strict):
    """Every channel rounded to a few levels (FSQ): no codebook to collapse."""

    type: Literal["fsq"]
    levels: Annotated[FromList[tuple[Annotated[int, Field(ge=3)], ...]], Field(min_length=1)] = (
        8,
        8,
        8,
        6,
        5,
    )
    """Levels of each channel; their product is the number of codes."""
    standardize: bool = False
    """Bring each channel to mean 0 and deviation 1 first, so that none stays at its last level."""


class LookupFree(Strict):
    """Every channel reduced to its sign (LFQ): two to the power of `bits` codes."""

    type: Literal["lfq"]
    bits: Annotated[int, Field(ge=1, le=24)] = 18
    """Channels, and so bits of a code."""
    entropy: NonNegativeReal = 0.1
    """Weight of the entropy loss: every token sure, all tokens together diverse."""
    diversity: NonNegativeReal = 1.0
    """Weight of the diversity inside the entropy loss."""
    inverse_temperature: PositiveReal = 100.0
    """Sharpness of the probabilities that the entropy is taken of."""
    commitment: NonNegativeReal = 0.25
    """Weight of the loss that keeps latents near their codes."""


class Residual(Strict):
    """Several quantizers one after another, each for what the ones before left over."""

    type: Literal["residual"]
    quantizer: Annotated[Vector | FiniteScalar | LookupFree, Field(discriminator="type")]
    """The quantizer that is stacked: vq, fsq or lfq."""
    depth: Annotated[int, Field(ge=2)] = 4
    """How many of them."""

    def findings(self) -> Iterator[Finding]:
        """What a stage leaves over is only a difference if nothing scaled it before."""
        if isinstance(self.quantizer, FiniteScalar) and self.quantizer.standardize:
            yield Finding(
                ("quantizer", "standardize"),
                "stages that scale what they are given do not add up to the latent",
                "Leave it out, or use fsq alone.",
            )


class MultiScale(Strict):
    """Residual quantization from coarse grids to the full one, with one learned codebook (VAR)."""

    type: Literal["multi_scale"]
    codes: Annotated[int, Field(ge=2)] = 4096
    """Number of codes."""
    width: Positive = 32
    """Numbers of a code."""
    distance: Distance = "euclidean"
    """What nearest means."""
    initial: Start = "kmeans"
    """Where codes start: at random, or at the clusters of the first batch."""
    revive: Fraction = 0.03
    """A code used less than this share of its fair use is moved to a latent; 0: never."""
    scales: Annotated[FromList[tuple[Scale, ...]], Field(min_length=1)] = tuple(
        (n, n) for n in (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)
    )
    """Rows and columns of each grid, coarse to full; other full grids scale all of them along."""
    refiners: Positive = 4
    """Convolutions after enlarging, each shared by neighbouring scales."""
    refiner_share: Annotated[float, Field(ge=0, le=1)] = 0.5
    """How much of the enlarged grid comes through its convolution."""
    commitment: NonNegativeReal = 0.25
    """Weight of the loss that keeps latents near their codes."""

    def findings(self) -> Iterator[Finding]:
        """Every grid is larger than the one before."""
        for index, (before, after) in enumerate(pairwise(self.scales), 1):
            if after[0] < before[0] or after[1] < before[1] or after == before:
                yield Finding(
                    ("scales", index),
                    f"{list(after)} after {list(before)} is no way from coarse to fine",
                    "Let rows and columns grow along the list.",
                )


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
