"""The plan of a stage of an image tokenizer: codes, and what they cost.

Encoder and decoder are run forwards and backwards on the meta device, where torch counts their
products and names what the backward pass keeps. A perceptual network is not counted: its weights
may not be there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from lit_eve.models.tokenizers.gumbel import GumbelQuantizer
from lit_eve.models.tokenizers.image_tokenizer import ImageTokenizer
from lit_eve.models.tokenizers.multi_scale import MultiScaleQuantizer
from lit_eve.models.tokenizers.quantizer import Grid, Quantizer, to_grid, to_tokens
from lit_eve.models.tokenizers.residual import ResidualQuantizer
from lit_eve.models.tokenizers.vector import VectorQuantizer
from lit_eve.planning.memory import FLOAT, HALF, step_memory
from lit_eve.planning.plan import (
    Row,
    StagePlan,
    disk,
    expected_steps,
    freeze,
    frozen_in_words,
    largest_side,
    rates_in_words,
)
from lit_eve.planning.spread import Spread
from lit_eve.schema import TokenizerExperiment

DISCRIMINATED = 9
"""Passes of an image through a discriminator in a step: three forwards, twice that backwards."""


@dataclass(frozen=True)
class TokenizerPlan(StagePlan):
    """A stage that trains on pictures."""

    codes: int
    """Of the image that is counted."""
    num_codes: int | None
    """Of a codebook; None if there is none."""

    def batch_flops(self, batch: Any) -> float:
        """Training arithmetic of a batch: by the number of its pixels."""
        images, _, height, width = batch.pixels.shape
        rows, columns = self.image
        return float(self.sample_flops * images * height * width / (rows * columns))

    @property
    def own_rows(self) -> Sequence[Row]:
        """Codes of a picture."""
        height, width = self.image
        book = "no codes" if self.num_codes is None else f"{self.codes} codes of {self.num_codes:,}"
        return (("largest image", f"{height}x{width} → {book}"),)

    @property
    def assumption(self) -> str:
        """Only the number of pictures can be unknown."""
        return "every picture is counted as one of that size"


def plan_stage(
    experiment: TokenizerExperiment,
    model: ImageTokenizer,
    name: str,
    *,
    devices: int,
    steps: int | None = None,
) -> TokenizerPlan:
    """Count one stage.

    Args:
        experiment: it all.
        model: its model, on the meta device.
        name: the stage.
        devices: that share the work.
        steps: what the stage's length amounts to, if the data is there.
    """
    stage = experiment.trained[name]
    side = largest_side(experiment)
    parts, trainable = freeze(model, stage)
    cost = image_cost(model, side)
    measured = steps is not None
    steps = steps if steps is not None else expected_steps(stage, 0)
    total, trained = sum(parts.values()), sum(trainable.values())
    spread = Spread.of(experiment.hardware, devices)
    number = HALF if stage.precision != "float32" else FLOAT
    before = experiment.source_of(name)
    return TokenizerPlan(
        name=name,
        task=stage.task,
        trains=rates_in_words(stage),
        frozen=frozen_in_words(parts, trainable),
        loads="nothing: random" if before is None else f"all of stage {before}",
        parameters=parts,
        trainable=trained,
        steps=steps,
        samples=None if steps is None else steps * stage.batch,
        image=(side, side),
        codes=num_codes_of(model.quantizer, (side // model.stride, side // model.stride)),
        num_codes=model.quantizer.num_codes,
        sample_flops=cost.flops,
        rounds=1,
        memory=step_memory(
            model,
            (),
            cost.kept * number * ceil(stage.batch / devices),
            shards=spread.shards,
            offload=spread.offload,
        ),
        disk=disk(experiment, total, trained),
        measured=measured,
    )


@dataclass(frozen=True)
class ImageCost:
    """What one picture costs in a training step."""

    flops: int
    kept: int
    """Numbers that the backward pass needs."""


def image_cost(model: ImageTokenizer, side: int) -> ImageCost:
    """Arithmetic and memory of one picture of `side` x `side` pixels, given what is frozen.

    Args:
        model: on the meta device, with `requires_grad` as in the stage.
        side: in pixels.
    """
    image = torch.empty(1, 3, side, side, device="meta")
    grid = (side // model.stride, side // model.stride)
    kept = _Kept(model)
    with FlopCounterMode(display=False) as counter:
        with saved_tensors_hooks(kept.pack, lambda tensor: tensor):
            outputs = model.decoder(_through(model.quantizer, model.latent(image)))
        if outputs.requires_grad:
            outputs.backward(torch.empty_like(outputs))  # type: ignore[no-untyped-call]
    flops = counter.get_total_flops() + lookup_flops(model.quantizer, grid)
    if model.discriminator is not None:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model.discriminator(image)
        flops += DISCRIMINATED * counter.get_total_flops()
    model.zero_grad()
    return ImageCost(flops, kept.numbers)


def num_codes_of(quantizer: Quantizer, grid: Grid) -> int:
    """Codes that a picture of a grid becomes."""
    if quantizer.num_codes is None:
        return 0
    if isinstance(quantizer, MultiScaleQuantizer):
        return sum(rows * columns for rows, columns in quantizer.scales_of(grid))
    return grid[0] * grid[1] * len(quantizer.levels_of_codes)


def lookup_flops(quantizer: Quantizer, grid: Grid) -> int:
    """Forward arithmetic of finding a picture's codes: tokens by all code vectors."""
    tokens = num_codes_of(quantizer, grid)
    match quantizer:
        case VectorQuantizer(codebook=book):
            return 2 * tokens * book.num_codes * book.width
        case ResidualQuantizer(stages=stages):
            return sum(lookup_flops(cast(Quantizer, stage), grid) for stage in stages)
        case MultiScaleQuantizer(codebook=book):
            refined = 2 * 9 * book.width**2 * grid[0] * grid[1] * len(quantizer.scales)
            return 2 * tokens * book.num_codes * book.width + 3 * refined
    return 0


class _Kept:
    """Counts what autograd saves, parameters aside, each storage once."""

    def __init__(self, model: nn.Module) -> None:
        self.numbers = 0
        self._seen = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
        self._held: list[Tensor] = []

    def pack(self, tensor: Tensor) -> Tensor:
        place = tensor.untyped_storage()._cdata
        if place not in self._seen:
            self._seen.add(place)
            self._held.append(tensor)  # or its address might be given to another
            self.numbers += tensor.numel()
        return tensor


def _through(quantizer: Quantizer, latent: Tensor) -> Tensor:
    """The way of the gradient: straight through, or as the mixture of all codes."""
    if isinstance(quantizer, GumbelQuantizer):
        return to_grid(to_tokens(latent) @ quantizer.codebook, latent.shape)
    return latent[:, : quantizer.out_channels]
