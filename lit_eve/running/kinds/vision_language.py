"""Runs of a vision-language model: packed text and pictures in, answers out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Self

from lightning import Callback, LightningModule
from rich.console import Console

from lit_eve import assemble
from lit_eve.assemble.vision_language import SIZES
from lit_eve.evaluation.examine import Examiner, ShowAnswers, held_out, scores
from lit_eve.evaluation.gaze import ShowGaze
from lit_eve.importing.saved_text import saved_text
from lit_eve.models.divide_and_conquer import DividedLanguageModel
from lit_eve.models.encoder_free import EncoderFreeVLM
from lit_eve.models.vision_language import VisionLanguageModel
from lit_eve.planning.plan import StagePlan
from lit_eve.planning.vision_language import plan_stage
from lit_eve.running.directory import RunDirectory
from lit_eve.running.kinds.packed import Packed, adapt_decoder
from lit_eve.running.preparing import prepare_datasets
from lit_eve.running.progress import progress_line
from lit_eve.schema import VisionLanguageExperiment
from lit_eve.tracking.logger import SpoolLogger
from lit_eve.tracking.runs import Direction
from lit_eve_data.disk.features import StoredTeacher
from lit_eve_data.disk.reading import RecordView
from lit_eve_data.disk.records import IMAGE
from lit_eve_data.encoding.text import ChatText
from lit_eve_data.packing.lengths import SampleEncoder

GAZED = 6
"""Pictures over which a validation draws what the model looks at."""


@dataclass(frozen=True)
class VisionLanguage(Packed[VisionLanguageExperiment, VisionLanguageModel]):
    """A vision-language model, trained on packed rows."""

    objective: ClassVar[tuple[str, Direction]] = ("test/all", "maximize")
    scores_title: ClassVar[str] = "held-out answers, by generation"

    @classmethod
    def prepare(
        cls,
        experiment: VisionLanguageExperiment,
        directory: RunDirectory,
        data: Path,
        console: Console,
    ) -> Self:
        """Datasets, text tokenizer and image cutter: what every stage reads through."""
        datasets = prepare_datasets(experiment, data, console)
        text = assemble.text(experiment.model, datasets, directory.text)
        shape = assemble.on_meta(experiment.model, text.num_tokens)
        cutter = assemble.cutter(experiment.model.images, shape.layout)
        return cls(experiment, directory, datasets, console, SampleEncoder(text, cutter))

    @classmethod
    def expect(cls, experiment: VisionLanguageExperiment, devices: int) -> list[StagePlan]:
        """Lengths are assumed."""
        model = assemble.on_meta(experiment.model, assemble.num_tokens(experiment.model.text))
        return [plan_stage(experiment, model, name, devices=devices) for name in experiment.trained]

    def plan(self, name: str, devices: int) -> StagePlan:
        """Lengths are measured."""
        packing = self.packing(name)
        return plan_stage(
            self.experiment,
            self.shape(),
            name,
            devices=devices,
            packing=packing,
            steps=self.steps(name, packing),
        )

    def model(self, weights: bool = True) -> VisionLanguageModel:
        """With the decoder's pretrained weights, if it has any."""
        return assemble.vision_language(
            self.experiment.model, self.encoder.text.num_tokens, weights
        )

    def shape(self) -> VisionLanguageModel:
        """On the meta device."""
        return assemble.on_meta(self.experiment.model, self.encoder.text.num_tokens)

    def encoder_of(self, name: str) -> SampleEncoder:
        """With the picture sizes of the stage `name`."""
        stage = self.experiment.trained.get(name)
        if stage is None or stage.size is None:
            return self.encoder
        policy = SIZES[stage.size.type](stage.size)
        return replace(self.encoder, cutter=replace(self.encoder.cutter, size=policy))

    def accept(self, exported: Path) -> None:
        """Tokens have to stand for the same words."""
        theirs, ours = saved_text(exported), self.encoder.text
        if theirs.about() != ours.about() or _vocabulary(theirs) != _vocabulary(ours):
            raise ValueError(
                f"the model in {exported} reads other tokens than this run's text tokenizer makes: "
                "its words would be mixed up. Write its tokenizer into the experiment: "
                f"model.text={{type: saved, from: {exported}}}."
            )

    def teachers(self, name: str, views: Sequence[RecordView]) -> Sequence[StoredTeacher]:
        """Of an alignment stage whose teacher is `stored`."""
        stage = self.experiment.trained[name]
        if not assemble.streams_features(self.experiment, stage):
            return ()
        return [assemble.stored_teacher(self.experiment.model, view) for view in views]

    def transform(self, model: VisionLanguageModel, what: str) -> None:
        """copy: visual tokens' own weights start over from the text's."""
        decoder = model.language_model
        assert what == "copy"
        assert isinstance(decoder, DividedLanguageModel)  # the file was checked
        decoder.copy_text_weights()

    def adapt(self, model: VisionLanguageModel) -> None:
        """Recompute activations, compile the decoder's blocks."""
        adapt_decoder(model, self.experiment.hardware)

    def task(self, name: str, model: VisionLanguageModel, steps: int) -> LightningModule:
        """The next token, and in an alignment stage the teacher's features."""
        return assemble.task(self.experiment, self.experiment.trained[name], model, steps)

    def callbacks(
        self, name: str, model: VisionLanguageModel, steps: int, logger: SpoolLogger
    ) -> list[Callback]:
        """A few held-out questions are answered at every validation, and some looked at."""
        first = next(iter(self.experiment.trained[name].data))
        view = assemble.view(self.datasets, first, "val")
        shown = [view[n] for n in range(min(self.experiment.evaluate.answers, len(view)))]
        watching: list[Callback] = [ShowAnswers(Examiner(self.encoder_of(name), shown), logger)]
        if isinstance(model, EncoderFreeVLM) and not self._sharded:
            seen = [sample for sample in shown if sample.images][:GAZED]
            watching.append(ShowGaze(self.encoder_of(name), seen, logger))
        return watching

    @property
    def _sharded(self) -> bool:
        return self.experiment.hardware.strategy in ("fsdp", "hsdp")

    def examine(
        self, name: str, model: VisionLanguageModel, limit: int | None = None
    ) -> dict[str, float]:
        """Scores on questions about scans that no training has seen; `limit` of each kind."""
        samples, stage = [], self.experiment.trained.get(name)
        for data in self.experiment.datasets if stage is None else stage.data:
            view = assemble.view(self.datasets, data, "test")
            kinds = [view.store.sidecar.kinds[code] for code in _codes(view)]
            samples += held_out(view, kinds, limit or self.experiment.evaluate.questions)
        with progress_line(self.console, f"{name}: held-out", "questions") as bar:
            return scores(Examiner(self.encoder_of(name), samples).ask(model, bar))

    def written(self, score: str, value: float) -> str:
        """Shares of right answers as percentages."""
        return f"{value:.1%}"


def _vocabulary(text: ChatText) -> dict[str, int]:
    """Words by token; the placeholder of an image is no word."""
    return {word: n for word, n in text.tokenizer.get_vocab().items() if word != IMAGE}


def _codes(view: RecordView) -> list[int]:
    return sorted(set(view.store.sidecar.kind[view.indices].tolist()))
