"""What an experiment will train, load, cost and leave behind, known before it starts.

Models are built on the meta device: a plan of a 7 B model takes seconds and no memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import ceil
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from lit_eve import assemble
from lit_eve.models.vision_language import VisionLanguageModel
from lit_eve.planning.flops import forward_flops, training_flops
from lit_eve.planning.memory import FLOAT, StepMemory, step_memory
from lit_eve.schema import VisionLanguageExperiment, load
from lit_eve.schema.images import Area, LongestEdge, Square
from lit_eve.schema.language_models import BytesText, TrainedText
from lit_eve.schema.training import LanguageStage
from lit_eve.tasks.optimizers import FROZEN, part_of
from lit_eve_data.packing import PackingPlan
from lit_eve_data.vocabulary import bytes_text

TEXT_TOKENS = 64
"""Text tokens of a sample where the data is not there yet to be measured."""


@dataclass(frozen=True)
class StagePlan:
    """One stage, counted."""

    name: str
    task: str
    trains: dict[str, str]
    """Part -> learning rate and when it thaws, in words."""
    frozen: list[str]
    loads: str
    parameters: dict[str, int]
    """Of each top-level part."""
    trainable: int
    steps: int | None
    """None where the data has to be prepared first."""
    samples: int | None
    tokens_per_step: int
    image: tuple[int, int]
    """Height and width in pixels of the image that is counted."""
    visual_tokens: int
    vision_flops: int
    """Forward arithmetic of the patch embedding for that image, as published."""
    sample_flops: int
    """Training arithmetic of one sample: forward, and twice that for what is trained."""
    memory: StepMemory
    """Bytes on each device."""
    disk: int
    """Bytes that the stage leaves, and needs while it runs."""
    measured: bool
    """Whether lengths come from the data or are assumed."""

    @property
    def total(self) -> int:
        """Parameters of the whole model."""
        return sum(self.parameters.values())


def of_file(
    file: Path, overrides: Sequence[str], *, tiny: bool = False, devices: int | None = None
) -> list[StagePlan]:
    """The plan of a file, without its data.

    Args:
        file: the experiment.
        overrides: `a.b=1` each.
        tiny: shrink it first.
        devices: to plan for; the file's own if None.

    Raises:
        ValueError: if the experiment is not one of a vision-language model.
    """
    experiment = load(file, overrides, tiny=tiny)
    if not isinstance(experiment, VisionLanguageExperiment):
        raise ValueError(f"{experiment.name} is no vision-language model: plan knows only those.")
    model = assemble.on_meta(experiment.model, _vocabulary(experiment))
    return [
        plan_stage(experiment, model, name, devices=devices or _devices(experiment))
        for name in experiment.stages
    ]


def plan_stage(
    experiment: VisionLanguageExperiment,
    model: VisionLanguageModel,
    name: str,
    *,
    devices: int,
    packing: PackingPlan | None = None,
    steps: int | None = None,
) -> StagePlan:
    """Count one stage.

    Args:
        experiment: it all.
        model: its model, on any device.
        name: the stage.
        devices: that share the work.
        packing: what the data says of lengths, if it is there.
        steps: what the stage's length amounts to with that data.
    """
    stage = experiment.stages[name]
    image = _image(experiment)
    rows, columns = (side // model.layout.cell for side in image)
    visual = model.layout.num_tokens(rows, columns)
    per_sample = (
        round(stage.tokens_per_row * (1 - packing.padding) / packing.samples_per_row)
        if packing is not None
        else visual + TEXT_TOKENS
    )
    per_step = packing.tokens_per_step if packing else _rounded(stage, per_sample)
    parts, trainable = _freeze(model, stage)
    sharded = experiment.hardware.strategy in ("fsdp", "hsdp")
    forward = forward_flops(model, per_sample, max(1, per_sample - visual), [(rows, columns)])
    samples_per_step = packing.samples_per_step if packing else stage.batch
    steps = steps if steps is not None else _steps(stage, per_step)
    return StagePlan(
        name=name,
        task=stage.task,
        trains={part: _words(options) for part, options in stage.train.items()},
        frozen=[part for part in parts if part not in trainable],
        loads=_source(experiment, name),
        parameters=parts,
        trainable=sum(trainable.values()),
        steps=steps,
        samples=None if steps is None else round(steps * samples_per_step),
        tokens_per_step=per_step,
        image=image,
        visual_tokens=visual,
        vision_flops=model.vision_flops(rows, columns),
        sample_flops=training_flops(model, forward),
        memory=step_memory(
            model,
            model.language_model,
            ceil(per_step / devices),
            half=stage.precision != "float32",
            shards=devices if sharded else 1,
        ),
        disk=_disk(experiment, sum(parts.values()), sum(trainable.values())),
        measured=packing is not None,
    )


def _vocabulary(experiment: VisionLanguageExperiment) -> int:
    match experiment.model.text:
        case TrainedText(vocabulary=size):
            return size
        case BytesText():
            return bytes_text().num_tokens
        case None:
            return 0  # a pretrained decoder brings its own


def _devices(experiment: VisionLanguageExperiment) -> int:
    devices = experiment.hardware.devices
    return 1 if devices == "auto" else devices


def _image(experiment: VisionLanguageExperiment) -> tuple[int, int]:
    """The image that is counted: the largest square the size policy makes, or the data has."""
    match experiment.model.images.size:
        case LongestEdge(edge=edge) | Square(edge=edge) | Area(max_side=edge):
            side = edge
        case _:
            sides = [
                getattr(options, "sides", (224, 224)) for options in experiment.datasets.values()
            ]
            side = max(high for _, high in sides)
    cell = experiment.model.cell
    side = max(1, side // cell) * cell
    return side, side


def _rounded(stage: LanguageStage, per_sample: int) -> int:
    """Slots of a step in whole rows."""
    return max(1, ceil(stage.batch * per_sample / stage.tokens_per_row)) * stage.tokens_per_row


def _steps(stage: LanguageStage, tokens_per_step: int) -> int | None:
    amount, unit = stage.budget.amount, stage.budget.unit
    if unit == "epochs":
        return None
    per_step = {"steps": 1, "samples": stage.batch, "tokens": tokens_per_step}[unit]
    return max(1, ceil(amount / per_step))


def _freeze(
    model: VisionLanguageModel, stage: LanguageStage
) -> tuple[dict[str, int], dict[str, int]]:
    """Set `requires_grad` as in the stage; parameters and trained ones of each top-level part."""
    parts: dict[str, int] = {}
    trained: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        part = name.split(".", 1)[0]
        parts[part] = parts.get(part, 0) + parameter.numel()
        parameter.requires_grad_(part_of(name, stage.train) != FROZEN)
        if parameter.requires_grad:
            trained[part] = trained.get(part, 0) + parameter.numel()
    return parts, trained


def _words(options: Any) -> str:
    lr = options.lr if isinstance(options.lr, float) else f"{options.lr.start} to {options.lr.end}"
    return f"{lr}" + (f" from step {options.thaw}" if options.thaw else "")


def _source(experiment: VisionLanguageExperiment, name: str) -> str:
    before = experiment.source_of(name)
    if before is not None:
        return f"all of stage {before}"
    decoder = experiment.model.language_model
    return f"decoder from {decoder.source}" if decoder.type == "pretrained" else "nothing: random"


def _disk(experiment: VisionLanguageExperiment, total: int, trainable: int) -> int:
    checkpoint = (total + 2 * trainable) * FLOAT
    return (experiment.checkpoint.keep + 1) * checkpoint + total * FLOAT


def compare(plan: StagePlan, summary: Mapping[str, Any], console: Console) -> None:
    """Hold the plan of a stage against what was measured."""
    rate = summary["samples"] / max(summary["seconds"], 1e-9)
    achieved = plan.sample_flops * rate
    console.print(
        f"  planned {quantity(plan.memory.total, 'B')} of model and activations; the process "
        f"peaked at {summary['memory_peak_gib']:.2f} GiB with all libraries",
        f"  {rate:,.0f} samples/s, {quantity(achieved, 'FLOP/s')}",
        sep="\n",
        highlight=False,
    )


def show(plans: Sequence[StagePlan], console: Console) -> None:
    """The plan as a table, a column for each stage."""
    table = Table(title="plan", title_justify="left", show_lines=False)
    table.add_column("")
    for plan in plans:
        table.add_column(plan.name, overflow="fold")
    for label, cell in _ROWS:
        table.add_row(label, *(cell(plan) for plan in plans))
    console.print(table)
    if not all(plan.measured for plan in plans):
        console.print(
            f"lengths are assumed: one image of that size and {TEXT_TOKENS} text tokens a sample",
            highlight=False,
        )


def _pairs(values: dict[str, Any]) -> str:
    return "\n".join(f"{key} {value}" for key, value in values.items()) or "nothing"


def quantity(value: float, unit: str = "") -> str:
    """A number with three digits and its multiplier: 42.5 G."""
    for factor, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor:
            return f"{value / factor:.3g} {letter}{unit}"
    return f"{value:.3g} {unit}".rstrip()


_ROWS: tuple[tuple[str, Any], ...] = (
    ("task", lambda p: p.task),
    ("loads", lambda p: p.loads),
    ("trains", lambda p: _pairs(p.trains)),
    ("frozen", lambda p: ", ".join(p.frozen) or "nothing"),
    ("parameters", lambda p: quantity(p.total)),
    ("of parts", lambda p: _pairs({k: quantity(v) for k, v in p.parameters.items()})),
    ("trainable", lambda p: quantity(p.trainable)),
    ("steps", lambda p: "after preparing" if p.steps is None else f"{p.steps:,}"),
    ("samples", lambda p: "after preparing" if p.samples is None else f"{p.samples:,}"),
    ("tokens a step", lambda p: f"{p.tokens_per_step:,}"),
    ("largest image", lambda p: f"{p.image[0]}x{p.image[1]} → {p.visual_tokens} tokens"),
    ("vision, forward", lambda p: quantity(p.vision_flops, "FLOP") + " an image"),
    ("training", lambda p: quantity(p.sample_flops, "FLOP") + " a sample"),
    ("memory a device", lambda p: quantity(p.memory.total, "B")),
    ("  weights", lambda p: quantity(p.memory.weights, "B")),
    ("  gradients", lambda p: quantity(p.memory.gradients, "B")),
    ("  optimizer", lambda p: quantity(p.memory.optimizer, "B")),
    ("  activations", lambda p: quantity(p.memory.activations, "B")),
    ("disk", lambda p: quantity(p.disk, "B")),
)


def as_json(plans: Sequence[StagePlan]) -> dict[str, Any]:
    """The plan as it is kept in the run."""
    return {plan.name: asdict(plan) for plan in plans}
