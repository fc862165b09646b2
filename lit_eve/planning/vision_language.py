"""The plan of a stage of a vision-language model: tokens, and what they cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from lit_eve.models.vision_language import VisionLanguageModel
from lit_eve.planning.flops import forward_flops, training_flops
from lit_eve.planning.memory import activation_bytes, step_memory
from lit_eve.planning.plan import (
    Row,
    StagePlan,
    disk,
    expected_steps,
    freeze,
    frozen_in_words,
    largest_side,
    quantity,
    rates_in_words,
)
from lit_eve.planning.spread import Spread
from lit_eve.schema import VisionLanguageExperiment
from lit_eve.schema.training import LanguageStage
from lit_eve.strategies.blocks import unique_blocks
from lit_eve_data.packing.plan import PackingPlan

TEXT_TOKENS = 64
"""Text tokens of a sample where the data is not there yet to be measured."""


@dataclass(frozen=True)
class VisionLanguagePlan(StagePlan):
    """A stage that trains on text with pictures."""

    tokens_per_step: int
    visual_tokens: int
    vision_flops: int
    """Forward arithmetic of the patch embedding for that image, as published."""

    @property
    def own_rows(self) -> Sequence[Row]:
        """Tokens and pictures."""
        height, width = self.image
        return (
            ("tokens a step", f"{self.tokens_per_step:,}"),
            ("largest image", f"{height}x{width} → {self.visual_tokens} tokens"),
            ("vision, forward", quantity(self.vision_flops, "FLOP", ".1f") + " an image"),
        )

    @property
    def assumption(self) -> str:
        """How long samples are."""
        return f"lengths are assumed: one image of that size and {TEXT_TOKENS} text tokens a sample"


def plan_stage(
    experiment: VisionLanguageExperiment,
    model: VisionLanguageModel,
    name: str,
    *,
    devices: int,
    packing: PackingPlan | None = None,
    steps: int | None = None,
) -> VisionLanguagePlan:
    """Count one stage.

    Args:
        experiment: it all.
        model: its model, on any device.
        name: the stage.
        devices: that share the work.
        packing: what the data says of lengths, if it is there.
        steps: what the stage's length amounts to with that data.
    """
    stage = experiment.trained[name]
    side = largest_side(experiment, stage.size)
    cells = side // model.layout.cell
    visual = model.layout.num_tokens(cells, cells)
    per_sample = _tokens_per_sample(stage, visual, packing)
    per_step = packing.tokens_per_step if packing else _rounded(stage, per_sample)
    parts, trainable = freeze(model, stage)
    spread, rows = Spread.of(experiment.hardware, devices), per_step // stage.tokens_per_row
    kept = activation_bytes(
        model.language_model,
        spread.at_once(rows) * stage.tokens_per_row,
        half=stage.precision != "float32",
        recompute=spread.recompute,
    )
    forward = forward_flops(model, per_sample, max(1, per_sample - visual), [(cells, cells)])
    samples_per_step = packing.samples_per_step if packing else stage.batch
    steps = steps if steps is not None else expected_steps(stage, per_step)
    return VisionLanguagePlan(
        name=name,
        task=stage.task,
        trains=rates_in_words(stage),
        frozen=frozen_in_words(parts, trainable),
        loads=_source(experiment, name),
        parameters=parts,
        trainable=sum(trainable.values()),
        steps=steps,
        samples=None if steps is None else round(steps * samples_per_step),
        tokens_per_step=per_step,
        image=(side, side),
        visual_tokens=visual,
        vision_flops=model.vision_flops(cells, cells),
        sample_flops=training_flops(model, forward),
        rounds=spread.rounds(rows),
        memory=step_memory(
            model, unique_blocks(model), kept, shards=spread.shards, offload=spread.offload
        ),
        disk=disk(experiment, sum(parts.values()), sum(trainable.values())),
        measured=packing is not None,
    )


def _tokens_per_sample(stage: LanguageStage, visual: int, packing: PackingPlan | None) -> int:
    """As the data has it; without data one picture and a few words."""
    if packing is None:
        return visual + TEXT_TOKENS
    return round(stage.tokens_per_row * (1 - packing.padding) / packing.samples_per_row)


def _rounded(stage: LanguageStage, per_sample: int) -> int:
    """Slots of a step in whole rows."""
    return max(1, ceil(stage.batch * per_sample / stage.tokens_per_row)) * stage.tokens_per_row


def _source(experiment: VisionLanguageExperiment, name: str) -> str:
    before = experiment.source_of(name)
    if before is not None:
        return f"all of stage {before}"
    decoder = experiment.model.language_model
    return f"decoder from {decoder.source}" if decoder.type == "pretrained" else "nothing: random"
