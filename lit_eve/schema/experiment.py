"""A whole experiment, resolved and checked."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from lit_eve.schema.base import Name, Named, NonNegative, Strict
from lit_eve.schema.datasets import Dataset
from lit_eve.schema.foundations import Contrastive, TextModel
from lit_eve.schema.losses import Loss
from lit_eve.schema.models import Model, VisionLanguage
from lit_eve.schema.running import (
    Checkpoint,
    Evaluation,
    Hardware,
    HeldOutEvaluation,
    MLflowTracking,
    Profile,
    TokenizerEvaluation,
    Tracking,
)
from lit_eve.schema.searching import Search
from lit_eve.schema.tokenizers import ImageTokenizer
from lit_eve.schema.training import (
    ContrastiveStage,
    LanguageOrTransform,
    LanguageStage,
    Stage,
    TextStage,
    TokenizerOrTransform,
    TokenizerStage,
    Transform,
)
from lit_eve.schema.writing import to_yaml

_ORDER = (
    *("name", "question", "seed", "model", "loss", "datasets", "stages"),
    *("evaluate", "checkpoint", "profile", "hardware", "tracking", "search"),
)
"""Keys of an experiment as they are written."""


class Experiment(Strict):
    """One question, the model that shall answer it, and the stages of its training."""

    name: Name
    """Short name: the folder of its runs, and its name in the tracker."""
    question: str | None = None
    """What the experiment shall find out."""
    seed: NonNegative = 0
    """Of everything random: weights, order of the data, sampling."""
    model: Model
    """What is trained: encoder_free, encoder, tokenizer, language_model or contrastive."""
    datasets: Named[Dataset] = Field(min_length=1)
    """Datasets by name."""
    stages: Mapping[str, Stage | Transform]
    """Stages by name, run in this order."""
    evaluate: Evaluation | TokenizerEvaluation | HeldOutEvaluation
    """How learning is looked at."""
    checkpoint: Checkpoint = Checkpoint()
    """How often the training is saved."""
    profile: Profile | None = None
    """Steps of every stage that are traced; a trace is `trace-steps-10-15.json.gz` of the stage."""
    hardware: Hardware = Hardware()
    """The machine."""
    tracking: Tracking = MLflowTracking(type="mlflow")
    """Where runs are recorded: mlflow or none."""
    search: Search | None = None
    """Values to try: run by `lit-eve search`."""

    @property
    def trained(self) -> Mapping[str, Stage]:
        """The stages that train, by name, in their order."""
        return {name: stage for name, stage in self.stages.items() if isinstance(stage, Stage)}

    def source_of(self, stage: str) -> str | None:
        """The stage whose weights `stage` starts from; None for one that starts afresh."""
        names = list(self.stages)
        above = names[names.index(stage) - 1] if names.index(stage) else None
        if getattr(self.stages[stage], "do", "") == "load":
            return None
        return self.stages[stage].previous or above

    def to_yaml(self) -> str:
        """The whole experiment, every default written out; `load` reads it back equal."""
        plain = self.model_dump(by_alias=True)
        return to_yaml({key: plain[key] for key in sorted(plain, key=_ORDER.index)})


class VisionLanguageExperiment(Experiment):
    """An experiment with a model that reads pictures and writes text."""

    model: VisionLanguage
    """What is trained."""
    loss: Loss = Loss()
    """Weights of the losses."""
    stages: Named[LanguageOrTransform] = Field(min_length=1)
    """Stages by name, run in this order."""
    evaluate: Evaluation = Evaluation()
    """How learning is looked at."""

    @property
    def trained(self) -> Mapping[str, LanguageStage]:
        """The stages that train, by name, in their order."""
        stages = self.stages.items()
        return {name: stage for name, stage in stages if isinstance(stage, LanguageStage)}


class TokenizerExperiment(Experiment):
    """An experiment with a model that turns pictures into codes and back."""

    model: ImageTokenizer
    """What is trained."""
    stages: Named[TokenizerOrTransform] = Field(min_length=1)
    """Stages by name, run in this order."""
    evaluate: TokenizerEvaluation = TokenizerEvaluation()
    """How learning is looked at."""

    @property
    def trained(self) -> Mapping[str, TokenizerStage]:
        """The stages that train, by name, in their order."""
        stages = self.stages.items()
        return {name: stage for name, stage in stages if isinstance(stage, TokenizerStage)}


class TextExperiment(Experiment):
    """An experiment with a language model alone."""

    model: TextModel
    """What is trained."""
    stages: Named[TextStage] = Field(min_length=1)
    """Stages by name, run in this order."""
    evaluate: HeldOutEvaluation = HeldOutEvaluation()
    """How learning is looked at."""

    @property
    def trained(self) -> Mapping[str, TextStage]:
        """All stages."""
        return self.stages


class ContrastiveExperiment(Experiment):
    """An experiment with a small CLIP."""

    model: Contrastive
    """What is trained."""
    stages: Named[ContrastiveStage] = Field(min_length=1)
    """Stages by name, run in this order."""
    evaluate: HeldOutEvaluation = HeldOutEvaluation()
    """How learning is looked at."""

    @property
    def trained(self) -> Mapping[str, ContrastiveStage]:
        """All stages."""
        return self.stages
