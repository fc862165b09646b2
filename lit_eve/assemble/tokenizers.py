"""Image tokenizers from the experiment file's words: one visible table per `type:`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from lightning.pytorch import Callback

from lit_eve.assemble.vision_language import SIZES
from lit_eve.losses.likelihood import Likelihood, absolute, logit_laplace, squared
from lit_eve.losses.perceptual import PerceptualLoss
from lit_eve.models.tokenizers import convolutional, dalle
from lit_eve.models.tokenizers.codebook import (
    Codebook,
    EmaCodebook,
    LearnedCodebook,
    Liveliness,
)
from lit_eve.models.tokenizers.discriminator import PatchDiscriminator
from lit_eve.models.tokenizers.fsq import FiniteScalarQuantizer
from lit_eve.models.tokenizers.gaussian import GaussianBottleneck
from lit_eve.models.tokenizers.gumbel import GumbelQuantizer, Relaxation
from lit_eve.models.tokenizers.image_tokenizer import Coder, Decoder, ImageTokenizer
from lit_eve.models.tokenizers.lfq import EntropyLoss, LookupFreeQuantizer
from lit_eve.models.tokenizers.multi_scale import MultiScaleQuantizer
from lit_eve.models.tokenizers.pixels import LogitLaplacePixels, PixelSpace, PlainPixels
from lit_eve.models.tokenizers.quantizer import Quantizer
from lit_eve.models.tokenizers.residual import ResidualQuantizer, Stage
from lit_eve.models.tokenizers.vector import VectorQuantizer
from lit_eve.schema import quantizers, tokenizers
from lit_eve.schema.schedules import Schedule
from lit_eve.tasks.optimizers import AdamWOptions, Rate
from lit_eve.tasks.tokenizer import TokenizerTask
from lit_eve.tasks.tokenizer_scores import counters
from lit_eve.tasks.tokenizer_terms import AdversarialTerm, PerceptualTerm, Term
from lit_eve_callbacks.annealing import Annealing
from lit_eve_callbacks.codebook import CodebookWatch
from lit_eve_callbacks.reconstructions import Reconstructions
from lit_eve_callbacks.weight_averaging import WeightAveraging
from lit_eve_data.encoding.crops import Crop
from lit_eve_data.encoding.images import SizePolicy

CHANNELS = 3
"""Red, green and blue."""

Options = Any
"""A block of the schema; each function of a table knows its own class."""

# quantizers ----------------------------------------------------------------------------------


def _gumbel(options: quantizers.Gumbel, values_per_position: int) -> Quantizer:
    relaxation: Relaxation = "straight_through" if options.straight_through else "relaxed"
    return GumbelQuantizer(options.codes, options.width, values_per_position, relaxation)


def _vector(options: quantizers.Vector, values_per_position: int) -> VectorQuantizer:
    update = options.update
    make = CODEBOOKS[update.type]
    decay = update.decay if isinstance(update, quantizers.AverageUpdate) else 0.99
    liveliness = Liveliness(options.initial, decay, options.revive)
    return VectorQuantizer(make(options, liveliness), options.commitment, options.gradient)


def _ema_codebook(options: quantizers.Vector, liveliness: Liveliness) -> Codebook:
    return EmaCodebook(options.codes, options.width, options.distance, liveliness)


def _learned_codebook(options: quantizers.Vector, liveliness: Liveliness) -> Codebook:
    assert isinstance(options.update, quantizers.GradientUpdate)
    weight = options.update.weight
    return LearnedCodebook(options.codes, options.width, options.distance, liveliness, weight)


CODEBOOKS: Mapping[str, Callable[[quantizers.Vector, Liveliness], Codebook]] = {
    "ema": _ema_codebook,
    "loss": _learned_codebook,
}


def _finite_scalar(
    options: quantizers.FiniteScalar, values_per_position: int
) -> FiniteScalarQuantizer:
    return FiniteScalarQuantizer(options.levels, options.standardize)


def _lookup_free(options: quantizers.LookupFree, values_per_position: int) -> LookupFreeQuantizer:
    entropy = EntropyLoss(options.entropy, options.diversity, options.inverse_temperature)
    return LookupFreeQuantizer(options.bits, entropy, options.commitment)


STAGES: Mapping[str, Callable[[Options, int], Stage]] = {
    "vq": _vector,
    "fsq": _finite_scalar,
    "lfq": _lookup_free,
}


def _residual(options: quantizers.Residual, values_per_position: int) -> Quantizer:
    make = STAGES[options.quantizer.type]
    stages = [make(options.quantizer, values_per_position) for _ in range(options.depth)]
    return ResidualQuantizer(stages)


def _multi_scale(options: quantizers.MultiScale, values_per_position: int) -> Quantizer:
    liveliness = Liveliness(options.initial, revive_below=options.revive)
    return MultiScaleQuantizer(
        LearnedCodebook(options.codes, options.width, options.distance, liveliness),
        options.scales,
        options.refiners,
        options.refiner_share,
        options.commitment,
    )


def _gaussian(options: quantizers.Gaussian, values_per_position: int) -> Quantizer:
    return GaussianBottleneck(options.width, values_per_position)


QUANTIZERS: Mapping[str, Callable[[Options, int], Quantizer]] = {
    **STAGES,
    "gumbel": _gumbel,
    "residual": _residual,
    "multi_scale": _multi_scale,
    "gaussian": _gaussian,
}

# encoders and decoders -----------------------------------------------------------------------


def _dalle(
    options: tokenizers.DalleEncoder, quantizer: Quantizer, outputs: int
) -> tuple[Coder, Decoder]:
    return (
        dalle.DalleEncoder(quantizer.in_channels, options.width, options.blocks),
        dalle.DalleDecoder(outputs, options.width, options.blocks, quantizer.out_channels),
    )


def _convolutional(
    options: tokenizers.ConvolutionalEncoder, quantizer: Quantizer, outputs: int
) -> tuple[Coder, Decoder]:
    layout = convolutional.Layout(
        options.width, options.multipliers, options.blocks, options.attention, options.norm
    )
    return (
        convolutional.ConvolutionalEncoder(
            quantizer.in_channels, layout, spread=quantizer.latent_spread
        ),
        convolutional.ConvolutionalDecoder(quantizer.out_channels, layout, outputs),
    )


ENCODERS: Mapping[str, Callable[[Options, Quantizer, int], tuple[Coder, Decoder]]] = {
    "dalle": _dalle,
    "convolutional": _convolutional,
}

PIXELS: Mapping[str, Callable[[], PixelSpace]] = {
    "logit_laplace": LogitLaplacePixels,
    "l1": PlainPixels,
    "l2": PlainPixels,
}

LIKELIHOODS: Mapping[str, Callable[[tokenizers.ImageTokenizer], Likelihood]] = {
    "logit_laplace": lambda options: partial(logit_laplace, least_scale=options.least_scale or 0.0),
    "l1": lambda _: absolute,
    "l2": lambda _: squared,
}


def likelihood(options: tokenizers.ImageTokenizer) -> Likelihood:
    """What the decoder's outputs say of a picture."""
    return LIKELIHOODS[options.likelihood](options)


FRAMES: Mapping[str, Callable[[Options], SizePolicy | Crop]] = {
    **SIZES,
    "crop": lambda size: Crop(size.edge, size.zoom, size.flip),
}


def sizes(options: tokenizers.TokenizerImages) -> SizePolicy | Crop:
    """How pictures get their size."""
    return FRAMES[options.size.type](options.size)


def build_quantizer(options: tokenizers.ImageTokenizer) -> Quantizer:
    """The quantizer of an experiment's model."""
    values_per_position = CHANNELS * options.encoder.stride**2
    return QUANTIZERS[options.quantizer.type](options.quantizer, values_per_position)


def build_tokenizer(options: tokenizers.ImageTokenizer) -> ImageTokenizer:
    """The model of an experiment; its discriminator, if it has one, included."""
    quantizer = build_quantizer(options)
    pixels = PIXELS[options.likelihood]()
    encoder, decoder = ENCODERS[options.encoder.type](options.encoder, quantizer, pixels.channels)
    critic = options.discriminator
    discriminator = None if critic is None else PatchDiscriminator(critic.width, critic.layers)
    return ImageTokenizer(encoder, quantizer, decoder, pixels, discriminator)


# training ------------------------------------------------------------------------------------


def build_task(
    options: tokenizers.ImageTokenizer,
    model: ImageTokenizer,
    rates: Mapping[str, Rate],
    adamw: AdamWOptions,
) -> TokenizerTask:
    """What trains `model`, with the losses that the file names."""
    return TokenizerTask(model, likelihood(options), rates, adamw, terms(options))


def terms(options: tokenizers.ImageTokenizer) -> list[Term]:
    """Losses besides likelihood and codes, in the order they are computed.

    Raises:
        ValueError: if the perceptual network's weights are not to be had.
    """
    made: list[Term] = []
    if options.perceptual is not None:
        perceptual = options.perceptual
        made.append(
            PerceptualTerm(PerceptualLoss.pretrained(perceptual.backbone), perceptual.weight)
        )
    if options.discriminator is not None:
        critic = options.discriminator
        made.append(AdversarialTerm(critic.weight, critic.starts))
    return made


def callbacks(
    options: tokenizers.ImageTokenizer,
    model: ImageTokenizer,
    number: Callable[[float | Schedule], Rate],
    images: int,
    every: int = 10,
) -> Sequence[Callback]:
    """What steers and watches a tokenizer's training.

    Args:
        options: the model's block.
        model: what was built from it.
        number: a number of the file as a function of the step.
        images: held-out pictures shown at a validation.
        every: optimizer steps per report; the codebook's windows are ten times as long.
    """
    made: list[Callback] = [
        Annealing(name, number(getattr(options.quantizer, key)), every)
        for name, key in (("temperature", "temperature"), ("kl_weight", "kl"))
        if hasattr(options.quantizer, key)
    ]
    if model.quantizer.num_codes is not None:
        scores = "model.quantizer" if model.relaxes else None
        made.append(CodebookWatch(counters(model.quantizer), 10 * every, scores=scores))
    made.append(Reconstructions(images))
    if options.ema is not None:
        made.append(WeightAveraging(options.ema))
    return made
