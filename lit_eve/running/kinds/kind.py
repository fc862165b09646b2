"""What a kind of experiment brings to a run: all in which kinds differ, and nothing else."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

from lightning import Callback, LightningModule
from PIL import Image
from rich.console import Console
from torch import Tensor, nn

from lit_eve.checkpoints import read_weights
from lit_eve.planning.plan import StagePlan
from lit_eve.running.directory import RunDirectory
from lit_eve.schema import Experiment
from lit_eve.tracking.logger import SpoolLogger
from lit_eve.tracking.runs import Direction
from lit_eve_data.loading.working import Share

E = TypeVar("E", bound=Experiment)
M = TypeVar("M", bound=nn.Module)


class Loader(Protocol):
    """Batches to train on, for ever, with an exact position."""

    @property
    def failures(self) -> Mapping[str, int]:
        """Samples that could not be used, by reason."""

    @property
    def shares(self) -> Mapping[str, tuple[float, float]]:
        """Share of all samples so far that each dataset gave, and the share asked for."""

    def __iter__(self) -> Iterator[Any]:
        """Batches from the position on."""


class Pass(Protocol):
    """Held-out batches, the same ones every time."""

    def __len__(self) -> int:
        """How many."""

    def __iter__(self) -> Iterator[Any]:
        """All of them."""


@dataclass(frozen=True)
class Feed:
    """The data of one stage, for this process."""

    loader: Loader
    validation: Pass
    steps: int
    """Optimizer steps that the stage's `for:` amounts to."""
    micro_batches: int = 1
    """Batches of one optimizer step."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What the stage's summary says of the data; `samples` at least."""


@dataclass(frozen=True)
class Kind(ABC, Generic[E, M]):
    """An experiment of one kind, set up for one run: what all its stages share.

    Everything that runs have in common is elsewhere: `run.py`, `stage.py` and `trainer.py` know no
    kind by name. A new kind is a subclass in a file of its own and a line in the table of
    `lit_eve.running.kinds`.
    """

    objective: ClassVar[tuple[str, Direction]]
    """The metric that makes a run good, as it is logged, and whether large or small is good."""
    scores_title: ClassVar[str]
    """Heading of the scores."""

    experiment: E
    directory: RunDirectory
    datasets: Mapping[str, Path]
    """Folders of the prepared datasets, by name."""
    console: Console

    @classmethod
    @abstractmethod
    def prepare(
        cls, experiment: Any, directory: RunDirectory, data: Path, console: Console
    ) -> Self:
        """Make or find what every stage reads: datasets, text tokenizers.

        Args:
            experiment: of this kind.
            directory: the run.
            data: root of prepared datasets.
            console: what the user sees.
        """

    @classmethod
    @abstractmethod
    def expect(cls, experiment: Any, devices: int) -> list[StagePlan]:
        """The plan of every stage of an experiment whose data is not there yet."""

    @abstractmethod
    def plan(self, name: str, devices: int) -> StagePlan:
        """The plan of a stage, measured on the data."""

    def micro_batches(self, name: str, devices: int) -> int:
        """Rounds in which every device works through its part of a step."""
        return 1

    @abstractmethod
    def model(self, weights: bool = True) -> M:
        """A new model, from torch's random state.

        Args:
            weights: read what the file says is pretrained; without, only its shape.
        """

    @abstractmethod
    def shape(self) -> M:
        """The model on the meta device, without memory."""

    @abstractmethod
    def feed(self, name: str, share: Share) -> Feed:
        """The data of a stage, for the process that does `share` of it."""

    @abstractmethod
    def task(self, name: str, model: M, steps: int) -> LightningModule:
        """What trains `model` in a stage of `steps` steps; it calls the model `model`."""

    @abstractmethod
    def examine(self, name: str, model: M, limit: int | None = None) -> dict[str, float]:
        """Scores after a stage, on data that no training has seen; on every rank.

        Args:
            name: the stage.
            model: with the weights to be examined.
            limit: how much is asked of it; None: what the file says.
        """

    @abstractmethod
    def drawn(self, name: str, batch: Any) -> Image.Image:
        """A batch of the stage `name` for people."""

    def callbacks(self, name: str, model: M, steps: int, logger: SpoolLogger) -> list[Callback]:
        """What steers and watches a stage, besides what all kinds have."""
        return []

    def adapt(self, model: M) -> None:
        """Change a model as the `hardware:` block asks for."""

    def final_weights(self, checkpoint: Path) -> Mapping[str, Tensor]:
        """What a stage leaves as its weights, from its last checkpoint."""
        return read_weights(checkpoint, prefix="model.")

    def accept(self, exported: Path) -> None:
        """Raise ValueError unless an exported model's weights mean here what they meant there."""

    def transform(self, model: M, what: str) -> None:
        """Change the weights of a model as a stage that trains nothing asks for (`do:`)."""
        raise NotImplementedError(f"{type(self).__name__} has no stage that does {what!r}")

    def leave(self, name: str, model: M) -> None:
        """Write what a stage leaves besides its weights; on rank zero."""

    def settle(self, name: str, model: M) -> None:
        """Bring a trained model to its `final_weights`, where these are not the last step's."""

    def written(self, score: str, value: float) -> str:
        """A score as the user reads it."""
        return f"{value:.4g}"
