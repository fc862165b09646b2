"""Around the training: evaluation, checkpoints, machine, tracking."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from lit_eve.schema.addresses import Address
from lit_eve.schema.base import Finding, FromList, MistakeError, Positive, Strict
from lit_eve.schema.units import Count, PositiveCount, Steps, shown


class Evaluation(Strict):
    """How often, and on how much, learning is looked at."""

    every: Steps = 200
    """Steps between two validations."""
    answers: Count = 24
    """Held-out questions answered by generation at every validation, shown as a table."""
    questions: PositiveCount = 500
    """Held-out questions of each kind answered at the end of a stage."""


class HeldOutEvaluation(Strict):
    """How often, and on how much, a decoder or a CLIP is looked at."""

    every: Steps = 200
    """Steps between two validations."""
    samples: PositiveCount = 1000
    """Held-out samples of each dataset that are scored at the end of a stage."""


class TokenizerEvaluation(Strict):
    """How often, and on how much, an image tokenizer is looked at."""

    every: Steps = 200
    """Steps between two validations."""
    images: PositiveCount = 16
    """Held-out pictures shown beside their reconstructions."""


class Best(Strict):
    """The checkpoint that scored best is kept as well."""

    metric: Annotated[str, Field(min_length=1)]
    """Name of the score, such as `val/loss`."""
    mode: Literal["min", "max"]
    """Whether a small or a large score is good."""


class Profile(Strict):
    """A trace of what the first process did, for chrome://tracing or Perfetto."""

    steps: FromList[tuple[Count, PositiveCount]]
    """From which step of a stage to which one: `[10, 15]`."""

    def findings(self) -> Iterator[Finding]:
        """There is a step between the two."""
        first, last = self.steps
        if first >= last:
            yield Finding(
                ("steps",),
                f"there is no step from {first} to {last}",
                f"Write the larger one last: `[{last}, {first}]`."
                if last < first
                else f"Write `[{first}, {first + 5}]`.",
            )


class Checkpoint(Strict):
    """How often a training is saved."""

    every: Steps = 200
    """Steps between two checkpoints."""
    keep: Positive = 2
    """Checkpoints kept of each stage, newest first."""
    best: Best | None = None
    """Score by which one more is kept."""


def _word_or_at_least(least: int, *words: str) -> Callable[[object], object]:
    def check(value: object) -> object:
        if value in words:
            return value
        if isinstance(value, int) and not isinstance(value, bool) and value >= least:
            return value
        raise MistakeError(
            f"expected {', '.join(words)}, or a whole number of at least {least}, found "
            f"{shown(value)}"
        )

    return check


AutoPositive = Annotated[Literal["auto"] | int, BeforeValidator(_word_or_at_least(1, "auto"))]
"""A whole number above 0, or `auto`."""
AutoNonNegative = Annotated[Literal["auto"] | int, BeforeValidator(_word_or_at_least(0, "auto"))]
"""A whole number, 0 or more, or `auto`."""
MicroBatch = Annotated[
    Literal["auto", "largest"] | int, BeforeValidator(_word_or_at_least(1, "auto", "largest"))
]
"""A whole number above 0, `auto` or `largest`."""


Machine = Literal["laptop", "1xgpu", "8xgpu", "cluster"]

MACHINES: Mapping[str, Mapping[str, Any]] = {
    "laptop": {"devices": 1},
    "1xgpu": {"accelerator": "gpu", "devices": 1, "compile": True},
    "8xgpu": {
        "accelerator": "gpu",
        "devices": 8,
        "strategy": "fsdp",
        "activation_checkpointing": True,
    },
    "cluster": {
        "accelerator": "gpu",
        "devices": 8,
        "nodes": 2,
        "strategy": "hsdp",
        "activation_checkpointing": True,
    },
}
"""What `machine:` stands for; every key can be given another value beside it."""


class Hardware(Strict):
    """The machine, and how the training is spread over it."""

    machine: Machine | None = None
    """Values for a kind of machine, to start from: a laptop, one GPU, eight, or nodes of eight."""
    accelerator: Literal["auto", "cpu", "gpu", "mps"] = "auto"
    """Kind of device."""
    devices: AutoPositive = "auto"
    """Devices of one machine."""
    nodes: Positive = 1
    """Machines."""
    strategy: Literal["auto", "ddp", "fsdp", "hsdp"] = "auto"
    """auto: one device, or ddp on several. fsdp shards the weights, hsdp keeps copies of shards."""
    micro_batch: MicroBatch = "auto"
    """Most rows that a device works on at once; the rest of a step follows in further rounds, whose
    gradients are added up. auto: its whole part of the step. largest: as many as fit, found by dry
    steps before training."""
    replicate: Annotated[int, Field(ge=2)] | None = None
    """Copies under hsdp; one a machine when left out."""
    offload: bool = False
    """Keep sharded weights and optimizer state in the memory of the host."""
    compile: bool = False
    """Compile the blocks of the decoder: a slow first step, then faster ones."""
    activation_checkpointing: bool = False
    """Compute the decoder's activations twice instead of keeping them: less memory, more time."""
    threads: AutoPositive = "auto"
    """CPU threads of one process."""
    workers: AutoNonNegative = "auto"
    """Processes that read data, for each device."""

    @model_validator(mode="before")
    @classmethod
    def _of_the_machine(cls, given: object) -> object:
        machine = given.get("machine") if isinstance(given, dict) else None
        return {**MACHINES[machine], **given} if machine in MACHINES else given  # type: ignore[dict-item, index]

    def findings(self) -> Iterator[Finding]:
        """Options that the strategy, or the device, would ignore."""
        if self.replicate is not None and self.strategy != "hsdp":
            yield Finding(
                ("replicate",),
                f"{self.strategy} keeps no copies of shards",
                "Write `strategy: hsdp`, or take `replicate` out.",
                (("strategy",),),
            )
        if self.strategy == "hsdp" and self.replicate is None and self.nodes == 1:
            yield Finding(
                ("strategy",),
                "hsdp on one machine would have a single copy of the shards",
                "Add `replicate: 2`, or write `strategy: fsdp`.",
                (("replicate",), ("nodes",)),
            )
        if self.offload and self.strategy not in ("fsdp", "hsdp"):
            yield Finding(
                ("offload",),
                f"{self.strategy} shards nothing that could be kept elsewhere",
                "Write `strategy: fsdp`, or take `offload` out.",
                (("strategy",),),
            )
        if self.offload and self.accelerator in ("cpu", "mps"):
            yield Finding(
                ("offload",),
                f"with `accelerator: {self.accelerator}` weights are in the host's memory already",
                "Take `offload` out.",
                (("accelerator",),),
            )
        if self.micro_batch == "largest" and self.accelerator == "mps":
            yield Finding(
                ("micro_batch",),
                "an Apple GPU does not tell what a step takes at most, so nothing can be measured",
                "Write a number, or `auto`.",
                (("accelerator",),),
            )
        yield from self._copies_fit()

    def _copies_fit(self) -> Iterator[Finding]:
        if self.strategy != "hsdp" or self.devices == "auto":
            return
        world, copies = int(self.devices) * self.nodes, self.replicate or self.nodes
        if world % copies or world == copies:
            yield Finding(
                ("replicate",) if self.replicate else ("nodes",),
                f"{world} devices do not form {copies} copies of at least two shards each",
                f"Choose a divisor of {world} below it.",
                (("devices",), ("strategy",)),
            )


_STORES = ("sqlite", "http", "https", "postgresql", "mysql", "mssql")


class MLflowTracking(Strict):
    """Runs are recorded in MLflow."""

    type: Literal["mlflow"]
    uri: Address = Address("sqlite:///mlflow.db")
    """sqlite file, database or server; may refer to the environment: `${oc.env:MLFLOW_URI}`."""

    def findings(self) -> Iterator[Finding]:
        """MLflow can record there."""
        scheme = self.uri.partition(":")[0].partition("+")[0]
        if scheme not in _STORES and not self.uri.startswith("${"):
            yield Finding(
                ("uri",),
                f"{self.uri!r} is no place that MLflow records in",
                "Write `sqlite:///mlflow.db`, or the address of a server: `http://...`.",
            )


class NoTracking(Strict):
    """Runs are on disk only."""

    type: Literal["none"]


Tracking = Annotated[MLflowTracking | NoTracking, Field(discriminator="type")]
"""Where runs are recorded."""
