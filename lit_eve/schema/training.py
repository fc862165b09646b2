"""Stages: what is trained, on what, for how long, and how."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import Discriminator, Field, Tag

from lit_eve.schema.addresses import Address
from lit_eve.schema.base import (
    Entries,
    Finding,
    Fraction,
    FromList,
    Name,
    PositiveReal,
    Strict,
    written_as,
)
from lit_eve.schema.images import Size
from lit_eve.schema.schedules import Rates
from lit_eve.schema.units import Budget, PositiveCount, Span

RateCurve = Literal["cosine", "linear", "exponential", "quarter_cosine", "constant"]


class AdamW(Strict):
    """AdamW, and the shape of the learning rate over a stage."""

    type: Literal["adamw"]
    schedule: RateCurve = "cosine"
    """Shape of the learning rate from its peak to `final`."""
    warmup: Span = Span(0.03, "share")
    """Steps, or share of the stage, over which the rate first rises."""
    final: Fraction = 0.0
    """Learning rate at the end, as a share of the peak."""
    betas: FromList[tuple[Fraction, Fraction]] = (0.9, 0.98)
    """Decay of the gradient's and of the squared gradient's average."""
    eps: PositiveReal = 1e-8
    """Added to the denominator."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Decoupled weight decay, of matrices only."""
    clip: PositiveReal | None = 1.0
    """Largest norm of the gradient; null for no clipping."""

    def findings(self) -> Iterator[Finding]:
        """What the schedule cannot do or would ignore."""
        if self.schedule == "exponential" and self.final == 0:
            yield Finding(
                ("schedule",),
                "an exponential schedule multiplies, so it never ends at 0",
                "Add `final: 0.01`, or choose cosine or linear.",
                (("final",),),
            )
        if self.schedule == "constant" and self.final:
            yield Finding(
                ("final",),
                f"a constant learning rate never gets to {self.final:g} of its peak",
                "Take `final` out, or choose cosine or linear.",
                (("schedule",),),
            )


class Stage(Strict):
    """One training: its data, its length, and what learns."""

    task: str
    """What is trained for."""
    data: Entries[PositiveReal] = Field(min_length=1)
    """Datasets, or `dataset.subset`, and their weights in the mixture."""
    budget: Budget = written_as("for")
    """Length: `16k samples`, `2M tokens`, `500 steps`, `1 epoch`."""
    batch: PositiveCount
    """Samples of one optimizer step, over all devices; packed rows meet it on average."""
    train: Entries[Rates] = Field(min_length=1)
    """Parts of the model and their learning rates; what is not listed is frozen."""
    optimizer: AdamW = AdamW(type="adamw")
    """Optimizer, and shape of the learning rate."""
    precision: Literal["float32", "bf16", "fp16"] = "float32"
    """float32, or mixed with bf16 or fp16."""
    previous: Name | None = written_as("from", default=None)
    """Stage whose weights this one starts from; the one above when left out."""


class PackedStage(Stage):
    """A stage that reads samples packed into rows."""

    tokens_per_row: PositiveCount = 512
    """Length of the rows that samples are packed into: short on a CPU, long on a GPU."""


class LanguageStage(PackedStage):
    """A stage of a vision-language model."""

    task: Literal["language", "alignment"]
    """language: the next token. alignment: the next token and the teacher's features."""
    size: Size | None = None
    """Size policy of pictures in this stage; the model's `images.size` when left out."""


class Transform(Strict):
    """A stage that trains nothing: it changes the weights it is given."""

    told_by: ClassVar[str | None] = "do"

    do: Literal["copy", "load"]
    """copy: visual tokens' own weights start over from the text's (EVEv2 after its first stage).
    load: all weights come from a file, of another run or imported."""
    weights: Address | None = None
    """What to load: `model.safetensors` of a stage, or a folder that `lit-eve export` wrote."""
    previous: Name | None = written_as("from", default=None)
    """Stage whose weights are changed; the one above when left out."""

    def findings(self) -> Iterator[Finding]:
        """Loading needs a file, and nothing else."""
        if self.do == "load" and self.weights is None:
            yield Finding(("do",), "there is nothing to load", "Add `weights: FILE`.")
        if self.do == "copy" and self.weights is not None:
            yield Finding(("weights",), "copying reads no file", "Take it out.", (("do",),))
        if self.do == "load" and self.previous is not None:
            yield Finding(("from",), "all weights come from the file", "Take it out.", (("do",),))


def _kind_of_stage(value: object) -> str:
    given = value if isinstance(value, dict) else {}
    return "<do>" if "do" in given or isinstance(value, Transform) else "<train>"


LanguageOrTransform = Annotated[
    Annotated[LanguageStage, Tag("<train>")] | Annotated[Transform, Tag("<do>")],
    Discriminator(_kind_of_stage),
]
"""A stage of a vision-language model: a training, or a change of weights (`do:`)."""


class TextStage(PackedStage):
    """A stage of a language model alone."""

    task: Literal["text"]
    """text: the next token, of every word."""


class ContrastiveStage(PackedStage):
    """A stage of a small CLIP."""

    task: Literal["contrastive"]
    """contrastive: which caption belongs to which picture of the batch."""


class TokenizerStage(Stage):
    """A stage of an image tokenizer."""

    task: Literal["tokenizer"]
    """tokenizer: the same picture again."""


TokenizerOrTransform = Annotated[
    Annotated[TokenizerStage, Tag("<train>")] | Annotated[Transform, Tag("<do>")],
    Discriminator(_kind_of_stage),
]
"""A stage of an image tokenizer: a training, or weights from a file (`do: load`)."""
