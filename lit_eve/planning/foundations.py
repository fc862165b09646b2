"""The plan of a stage of a decoder or a CLIP that a vision-language model will start from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

from lit_eve.models.contrastive import ContrastiveModel
from lit_eve.models.text_model import TextModel
from lit_eve.planning.flops import forward_flops, training_flops
from lit_eve.planning.memory import FLOAT, HALF, activation_bytes, step_memory
from lit_eve.planning.plan import (
    Row,
    StagePlan,
    disk,
    expected_steps,
    freeze,
    frozen_in_words,
    rates_in_words,
)
from lit_eve.planning.spread import Spread
from lit_eve.schema import ContrastiveExperiment, TextExperiment
from lit_eve.strategies.blocks import unique_blocks
from lit_eve_data.packing.plan import PackingPlan

TOKENS = 48
"""Tokens of a text, and of a caption, where the data is not there yet to be measured."""
KEPT = 16
"""Numbers as wide as the model that a transformer's layer keeps of a token for going backwards."""


@dataclass(frozen=True)
class FoundationPlan(StagePlan):
    """A stage that trains a decoder or a CLIP."""

    tokens_per_step: int

    @property
    def own_rows(self) -> Sequence[Row]:
        """Tokens."""
        return (("tokens a step", f"{self.tokens_per_step:,}"),)

    @property
    def assumption(self) -> str:
        """How long texts are."""
        return f"lengths are assumed: {TOKENS} tokens of text a sample"


def plan_stage(
    experiment: TextExperiment | ContrastiveExperiment,
    model: TextModel | ContrastiveModel,
    name: str,
    *,
    devices: int,
    packing: PackingPlan | None = None,
    steps: int | None = None,
) -> FoundationPlan:
    """Count one stage.

    Args:
        experiment: it all.
        model: its model, on the meta device.
        name: the stage.
        devices: that share the work.
        packing: what the data says of lengths, if it is there.
        steps: what the stage's length amounts to with that data.
    """
    stage = experiment.trained[name]
    per_step = packing.tokens_per_step if packing else stage.batch * TOKENS
    samples = packing.samples_per_step if packing else float(stage.batch)
    parts, trainable = freeze(model, stage)
    total, trained = sum(parts.values()), sum(trainable.values())
    steps = steps if steps is not None else expected_steps(stage, per_step)
    before = experiment.source_of(name)
    half = stage.precision != "float32"
    spread, rows = Spread.of(experiment.hardware, devices), ceil(per_step / stage.tokens_per_row)
    if isinstance(model, TextModel):
        length = max(1, round(per_step / samples))
        flops = training_flops(model, forward_flops(model, length, length, []))
        at_once = min(ceil(per_step / devices), spread.at_once(rows) * stage.tokens_per_row)
        kept = activation_bytes(
            model.language_model, at_once, half=half, recompute=spread.recompute
        )
    else:
        flops = clip_flops(model)
        kept = clip_bytes(model, half=half) * ceil(samples / devices)
    return FoundationPlan(
        name=name,
        task=stage.task,
        trains=rates_in_words(stage),
        frozen=frozen_in_words(parts, trainable),
        loads="nothing: random" if before is None else f"all of stage {before}",
        parameters=parts,
        trainable=trained,
        steps=steps,
        samples=None if steps is None else round(steps * samples),
        image=(getattr(model, "side", 0), getattr(model, "side", 0)),
        sample_flops=flops,
        rounds=spread.rounds(rows),
        memory=step_memory(
            model, unique_blocks(model), kept, shards=spread.shards, offload=spread.offload
        ),
        disk=disk(experiment, total, trained),
        measured=packing is not None,
        tokens_per_step=per_step,
    )


def clip_flops(model: ContrastiveModel) -> int:
    """Training arithmetic of a picture with its caption: forward, and twice that backward.

    A layer multiplies every token with 12 D^2 weights, and every pair of tokens twice.
    """
    forward = sum(
        depth * (24 * width**2 * tokens + 4 * tokens**2 * width)
        for tokens, width, depth in _halves(model)
    )
    return 3 * forward


def clip_bytes(model: ContrastiveModel, *, half: bool) -> int:
    """What the backward pass keeps of a picture with its caption, roughly."""
    numbers = sum(KEPT * tokens * width * depth for tokens, width, depth in _halves(model))
    return numbers * (HALF if half else FLOAT)


def _halves(model: ContrastiveModel) -> list[tuple[int, int, int]]:
    """Tokens, width and depth of both transformers."""
    seen: Any = model.clip.config.vision_config
    read: Any = model.clip.config.text_config
    return [
        ((model.side // model.patch) ** 2 + 1, seen.hidden_size, seen.num_hidden_layers),
        (model.longest, read.hidden_size, read.num_hidden_layers),
    ]
