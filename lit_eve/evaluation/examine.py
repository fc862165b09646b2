"""Held-out questions answered by generation, as a user would ask them: never by teacher forcing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from lightning import Callback, LightningModule, Trainer
from PIL import Image

from lit_eve.metrics.answers import AnswerScores, answer_box, is_right
from lit_eve.models.generation import Sampling, generate
from lit_eve.models.vision_language import VisionLanguageModel
from lit_eve.strategies import usable_weights
from lit_eve.tracking.logger import SpoolLogger
from lit_eve.tracking.pictures import Answer, answer_sheet
from lit_eve_data.disk.reading import RecordView
from lit_eve_data.disk.records import IMAGE, Sample
from lit_eve_data.packing.lengths import SampleEncoder
from lit_eve_data.packing.rows import Item, collate

SLOTS = 8_192
"""Prompt slots of one batch of generation: bounds its memory."""
MARGIN = 8
"""New tokens allowed beyond the longest expected answer."""

Report = Callable[[int, int], None]


@dataclass(frozen=True)
class Answered:
    """A held-out sample and what the model made of its last question."""

    sample: Sample
    given: str

    @property
    def expected(self) -> str:
        """The answer of the data."""
        return self.sample.turns[-1]["content"]

    @property
    def right(self) -> bool:
        """Whether the model's answer counts as right."""
        return is_right(self.sample.kind, self.expected, self.given)

    def card(self) -> Answer:
        """As a picture card."""
        question = self.sample.turns[-2]["content"].replace(IMAGE, "").strip()
        return Answer(
            picture=self.picture(),
            question=question,
            expected=self.expected,
            given=self.given,
            correct=self.right,
            kind=self.sample.kind,
            expected_box=answer_box(self.expected),
            given_box=answer_box(self.given),
        )

    def row(self) -> dict[str, object]:
        """As a row of the answers table."""
        card = self.card()
        return {
            "picture": self.picture(),
            "kind": card.kind,
            "question": card.question,
            "expected": card.expected,
            "given": card.given,
            "right": card.correct,
        }

    def picture(self) -> Image.Image:
        """The sample's first image, or an empty one for text alone."""
        if not self.sample.images:
            return Image.new("RGB", (16, 16), "white")
        return Image.fromarray(np.asarray(self.sample.images[0].pixels()))


@dataclass(frozen=True)
class Examiner:
    """A fixed set of held-out samples whose last answers the model has to give itself."""

    encoder: SampleEncoder
    samples: Sequence[Sample]

    def ask(self, model: VisionLanguageModel, report: Report | None = None) -> list[Answered]:
        """Let the model answer all of them, in their order.

        Args:
            model: as trained; left in the mode it was in.
            report: told how many are answered, and of how many.
        """
        given: dict[int, str] = {}
        for numbers in self._batches():
            answers = self._generate(model, [self.samples[number] for number in numbers])
            given.update(zip(numbers, answers, strict=True))
            if report is not None:
                report(len(given), len(self.samples))
        return [Answered(sample, given[n]) for n, sample in enumerate(self.samples)]

    def _batches(self) -> list[list[int]]:
        """Samples of like lengths of prompt and answer together: little padding, few steps."""
        lengths = [self._lengths(sample) for sample in self.samples]
        order = sorted(range(len(lengths)), key=lambda n: (lengths[n][1] // 8, lengths[n][0]))
        batches: list[list[int]] = []
        for number in order:
            prompt, answer = lengths[number]
            size = SLOTS // (prompt + answer + MARGIN)
            same = batches and lengths[batches[-1][0]][1] // 8 == answer // 8
            if not same or len(batches[-1]) >= size:
                batches.append([])
            batches[-1].append(number)
        return batches

    def _lengths(self, sample: Sample) -> tuple[int, int]:
        """Slots of a sample's prompt and of its expected answer."""
        cutter = self.encoder.cutter
        visual = [cutter.num_tokens(image.height, image.width) for image in sample.images]
        start, stop = self.encoder.text.encode(sample.turns, visual).answers[-1]
        return start, stop - start

    def _generate(self, model: VisionLanguageModel, samples: Sequence[Sample]) -> list[str]:
        longest = max(self._lengths(sample)[1] for sample in samples)
        sampling = Sampling(longest + MARGIN, self.encoder.text.end_id)
        return reply(model, self.encoder, samples, sampling)


def reply(
    model: VisionLanguageModel,
    encoder: SampleEncoder,
    samples: Sequence[Sample],
    sampling: Sampling,
) -> list[str]:
    """What the model says in place of each sample's last turn, all in one batch."""
    items = [_prompt(encoder, sample) for sample in samples]
    slots = max(len(item.encoded) for item in items)
    device = next(model.parameters()).device
    batch = collate([[item] for item in items], slots, encoder.text.pad_id, encoder.cutter)
    ids = generate(model, batch.to(device), sampling)
    return [encoder.text.decode(answer).strip() for answer in ids]


def _prompt(encoder: SampleEncoder, sample: Sample) -> Item:
    visual = [encoder.cutter.num_tokens(i.height, i.width) for i in sample.images]
    encoded = encoder.text.prompt(sample.turns[:-1], visual)
    return Item(encoded, [image.pixels() for image in sample.images], sample.kind)


def held_out(view: RecordView, kinds: Sequence[str], count: int) -> list[Sample]:
    """The first `count` samples of each kind, the same ones every time."""
    return [s for kind in kinds for s in view.store.questions(kind, count)]


def scores(answers: Sequence[Answered]) -> dict[str, float]:
    """Scores of all answers together and of each kind, by short names."""
    metric = AnswerScores()
    for answer in answers:
        metric.update(answer.sample.kind, answer.expected, answer.given, facts=answer.sample.facts)
    return {name: float(value) for name, value in metric.compute().items()}


@dataclass
class ShowAnswers(Callback):
    """At every validation: a few held-out questions, answered, as a table and as a picture."""

    examiner: Examiner
    logger: SpoolLogger

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Every rank asks, since a sharded model answers only with all of them; the first logs."""
        if trainer.sanity_checking or not self.examiner.samples:
            return
        model = pl_module.model
        assert isinstance(model, VisionLanguageModel)
        with usable_weights(pl_module):
            answers = self.examiner.ask(model)
        if trainer.is_global_zero:
            step = trainer.global_step
            self.logger.log_table("answers", step, [answer.row() for answer in answers])
            sheet = answer_sheet([answer.card() for answer in answers])
            self.logger.log_images("val/answers", step, [sheet])
            right = sum(answer.right for answer in answers) / len(answers)
            self.logger.log_metrics({"val/answers_right": right}, step)
