"""What a stage will train, load, cost and leave behind, known before it starts.

Models are built on the meta device: a plan of a 7 B model takes seconds and no memory.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import ceil
from typing import Any

from rich.console import Console
from rich.table import Table
from torch import nn

from lit_eve.planning.memory import FLOAT, StepMemory
from lit_eve.schema import Experiment
from lit_eve.schema.foundations import TextModel
from lit_eve.schema.images import Area, Crop, LongestEdge, SizeOrCrop, Square
from lit_eve.schema.training import Stage
from lit_eve.tasks.optimizers import FROZEN, part_of

Row = tuple[str, str]
"""What is counted, and how much it is, as the user reads them."""


@dataclass(frozen=True)
class StagePlan(ABC):
    """One stage, counted; what only one kind of experiment counts is in a subclass."""

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
    image: tuple[int, int]
    """Height and width in pixels of the image that is counted."""
    sample_flops: int
    """Training arithmetic of one sample: forward, and twice that for what is trained."""
    rounds: int
    """Micro-batches of a step on each device."""
    memory: StepMemory
    """Bytes on each device."""
    disk: int
    """Bytes that the stage leaves, and needs while it runs."""
    measured: bool
    """Whether lengths come from the data or are assumed."""

    def batch_flops(self, batch: Any) -> float:
        """Training arithmetic of a batch: as many average samples as it has."""
        return float(self.sample_flops * batch.num_samples)

    @property
    def total(self) -> int:
        """Parameters of the whole model."""
        return sum(self.parameters.values())

    @property
    @abstractmethod
    def own_rows(self) -> Sequence[Row]:
        """What only this kind of experiment counts."""

    @property
    @abstractmethod
    def assumption(self) -> str:
        """What was taken for granted, where lengths are not measured."""

    @property
    def rows(self) -> Sequence[Row]:
        """All of it, for a table."""
        memory = self.memory
        return (
            ("task", self.task),
            ("loads", self.loads),
            ("trains", _pairs(self.trains)),
            ("frozen", ", ".join(self.frozen) or "nothing"),
            ("parameters", quantity(self.total)),
            ("of parts", _pairs({part: quantity(n) for part, n in self.parameters.items()})),
            ("trainable", quantity(self.trainable)),
            ("steps", "after preparing" if self.steps is None else f"{self.steps:,}"),
            ("samples", "after preparing" if self.samples is None else f"{self.samples:,}"),
            *self.own_rows,
            ("rounds a step", f"{self.rounds:,} on each device"),
            ("training", quantity(self.sample_flops, "FLOP") + " a sample"),
            ("memory a device", quantity(memory.total, "B")),
            ("  weights", quantity(memory.weights, "B")),
            ("  gradients", quantity(memory.gradients, "B")),
            ("  optimizer", quantity(memory.optimizer, "B")),
            ("  activations", quantity(memory.activations, "B")),
            ("  whole for a moment", quantity(memory.gathered, "B")),
            ("of the host's", quantity(memory.host, "B")),
            ("disk", quantity(self.disk, "B")),
        )


def show(plans: Sequence[StagePlan], console: Console) -> None:
    """The plan as a table, a column for each stage."""
    table = Table(title="plan", title_justify="left", show_lines=False)
    table.add_column("")
    for plan in plans:
        table.add_column(plan.name, overflow="fold")
    for cells in zip(*(plan.rows for plan in plans), strict=True):
        table.add_row(cells[0][0], *(value for _, value in cells))
    console.print(table)
    for plan in plans:
        if not plan.measured:
            console.print(plan.assumption, highlight=False)
            break


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


def as_json(plans: Sequence[StagePlan], more: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The plan as it is kept in the run.

    Args:
        plans: of all stages.
        more: what else is known, by stage.
    """
    return {plan.name: asdict(plan) | (more or {}).get(plan.name, {}) for plan in plans}


def quantity(value: float, unit: str = "", form: str = ".3g") -> str:
    """A number, with three digits unless `form` says otherwise, and its multiplier: 42.5 G."""
    for factor, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor:
            return f"{value / factor:{form}} {letter}{unit}"
    return f"{value:.3g} {unit}".rstrip()


def _pairs(values: Mapping[str, Any]) -> str:
    return "\n".join(f"{key} {value}" for key, value in values.items()) or "nothing"


# what all kinds count alike ------------------------------------------------------------------


def freeze(model: nn.Module, stage: Stage) -> tuple[dict[str, int], dict[str, int]]:
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


def frozen_in_words(parts: Mapping[str, int], trainable: Mapping[str, int]) -> list[str]:
    """Parts that do not learn, whole or in part."""
    some = {part for part, count in parts.items() if 0 < trainable.get(part, 0) < count}
    whole = [part for part in parts if part not in trainable]
    return [*whole, *(f"the rest of {part}" for part in parts if part in some)]


def rates_in_words(stage: Stage) -> dict[str, str]:
    """Learning rate of every trained part, and when it thaws."""
    return {part: _words(options) for part, options in stage.train.items()}


def _words(options: Any) -> str:
    lr = options.lr if isinstance(options.lr, float) else f"{options.lr.start} to {options.lr.end}"
    return f"{lr}" + (f" from step {options.thaw}" if options.thaw else "")


def largest_side(experiment: Experiment, size: SizeOrCrop | None = None) -> int:
    """Side of the image that is counted: the largest the size policy makes, or the data has.

    Args:
        experiment: whose model cuts pictures into cells.
        size: a stage's own policy instead of the model's.
    """
    model = experiment.model
    assert not isinstance(model, TextModel)  # it sees nothing
    return max(1, _edge(experiment, size or model.images.size) // model.cell) * model.cell


def _edge(experiment: Experiment, size: SizeOrCrop) -> int:
    match size:
        case LongestEdge(edge=edge) | Square(edge=edge) | Crop(edge=edge) | Area(max_side=edge):
            return edge
    sides = [getattr(options, "sides", (224, 224)) for options in experiment.datasets.values()]
    return max(high for _, high in sides)


def expected_steps(stage: Stage, tokens_per_step: int) -> int | None:
    """Optimizer steps of a stage, where its length says so without looking at the data."""
    amount, unit = stage.budget.amount, stage.budget.unit
    if unit == "epochs":
        return None
    per_step = {"steps": 1, "samples": stage.batch, "tokens": tokens_per_step}[unit]
    return max(1, ceil(amount / per_step))


def disk(experiment: Experiment, total: int, trainable: int) -> int:
    """Bytes of checkpoints, with two moments of what is trained, and of the final weights."""
    checkpoint = (total + 2 * trainable) * FLOAT
    return (experiment.checkpoint.keep + 1) * checkpoint + total * FLOAT
