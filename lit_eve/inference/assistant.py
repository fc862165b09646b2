"""A model that answers: questions with any number of pictures, many at once or word by word."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from transformers import TextStreamer

from lit_eve.models.generation import Sampling, generate
from lit_eve.models.likelihood import Likelihood, answer_likelihoods
from lit_eve.models.vision_language import VisionLanguageModel
from lit_eve_data.batches import PackedBatch
from lit_eve_data.disk.records import IMAGE, BadSampleError, StoredImage, Turn
from lit_eve_data.encoding.text import Encoded
from lit_eve_data.packing.lengths import SampleEncoder
from lit_eve_data.packing.rows import Item, collate

WINDOW = 512
"""Questions read ahead and sorted by length: bounds the pictures held in memory."""

Report = Callable[[int, int], None]
"""Called with how many are done, and of how many."""


@dataclass(frozen=True)
class Question:
    """A conversation whose last turn is the user's, and its pictures."""

    turns: Sequence[Turn]
    images: Sequence[StoredImage] = ()
    seed: int = 0
    """Of what is drawn for its answer."""
    name: str = ""
    """Where it comes from, for messages: `questions.jsonl:3`."""


@dataclass(frozen=True)
class Answer:
    """What the model says to a question."""

    text: str
    tokens: int
    """New tokens, the end not counted."""
    finished: bool
    """Whether the model ended it; otherwise it was cut off."""


@dataclass(frozen=True)
class Decoding:
    """How tokens are chosen; see `Sampling`, which checks them."""

    max_new_tokens: int = 64
    temperature: float = 0.0
    top_p: float = 1.0

    def sampling(self, end_token: int) -> Sampling:
        """For a model whose answers end with `end_token`."""
        return Sampling(self.max_new_tokens, end_token, self.temperature, self.top_p)

    def checked(self) -> Decoding:
        """This, or ValueError if a number is out of range or would be ignored."""
        self.sampling(end_token=0)
        return self


@dataclass(frozen=True)
class Assistant:
    """A trained vision-language model and what turns words and pictures into its input."""

    model: VisionLanguageModel
    encoder: SampleEncoder
    stage: str
    """Whose weights it has."""
    weights: Path
    """The file they came from."""
    slots: int = 8_192
    """Prompt and answer tokens of one batch: bounds its memory."""

    def answers(
        self,
        questions: Iterable[Question],
        decoding: Decoding,
        report: Report | None = None,
        total: int = 0,
    ) -> Iterator[Answer]:
        """Answer many questions, in their order; each as it would be answered alone.

        Args:
            questions: any number; read a window at a time.
            decoding: how to choose tokens.
            report: told after every batch.
            total: how many questions there are, for `report`.

        Raises:
            ValueError: naming a question that cannot be put, before its window is answered.
        """
        done, source = 0, iter(questions)
        while window := list(islice(source, WINDOW)):
            lengths = [len(self.encoded(question, decoding)) for question in window]
            found: dict[int, Answer] = {}
            for numbers in self.batches(lengths, decoding):
                answers = self._generate([window[n] for n in numbers], decoding)
                found.update(zip(numbers, answers, strict=True))
                if report is not None:
                    report(done + len(found), total)
            done += len(window)
            yield from (found[number] for number in range(len(window)))

    def stream(
        self, question: Question, decoding: Decoding, write: Callable[[str], None]
    ) -> Answer:
        """Answer one question, telling every word as soon as it is whole.

        Raises:
            ValueError: if the question cannot be put.
        """
        words = _Words(self.encoder.text.transformers(), write)
        return self._generate([question], decoding, words)[0]

    def likelihoods(
        self,
        questions: Iterable[Question],
        choices: Sequence[Sequence[str]],
        report: Report | None = None,
    ) -> Iterator[list[Likelihood]]:
        """How likely each of several answers to every question is, its end included.

        Args:
            questions: any number; read a window at a time.
            choices: answers to each.
            report: told how many questions are done, and of how many.

        Raises:
            ValueError: naming a question that cannot be put.
        """
        done, source = 0, iter(questions)
        while window := list(islice(source, WINDOW)):
            asked = [
                (question, answer)
                for question, answers in zip(window, choices[done:], strict=False)
                for answer in answers
            ]
            lengths = [len(self._with_answer(*pair)) for pair in asked]
            found: dict[int, Likelihood] = {}
            for numbers in self.batches(lengths, Decoding(1)):
                items = [
                    self._item(q, self._with_answer(q, a)) for q, a in (asked[n] for n in numbers)
                ]
                measured = answer_likelihoods(self.model, self._batch(items))
                found.update(zip(numbers, measured, strict=True))
                if report is not None:
                    report(done + len(found) * len(window) // len(asked), len(choices))
            in_order = iter(found[number] for number in range(len(asked)))
            for answers in choices[done : done + len(window)]:
                yield list(islice(in_order, len(answers)))
            done += len(window)

    def _with_answer(self, question: Question, answer: str) -> Encoded:
        """A question and an answer as tokens; only that answer is in question."""
        self.encoded(question, Decoding(1))  # tells what is wrong with it
        cutter = self.encoder.cutter
        visual = [cutter.num_tokens(image.height, image.width) for image in question.images]
        turns = [*question.turns, {"role": "assistant", "content": answer}]
        encoded = self.encoder.text.encode(turns, visual)
        return Encoded(encoded.ids, encoded.answers[-1:], encoded.images)

    def encoded(self, question: Question, decoding: Decoding) -> Encoded:
        """A question as tokens.

        Raises:
            ValueError: if its pictures and placeholders do not match, its turns are out of order,
                or it leaves no room for the answer.
        """
        place = f"{question.name}: " if question.name else ""
        cutter, text = self.encoder.cutter, self.encoder.text
        check_placeholders(question.turns, len(question.images), place)
        visual = [cutter.num_tokens(image.height, image.width) for image in question.images]
        try:
            encoded = text.prompt(question.turns, visual)
        except ValueError as error:
            raise ValueError(f"{place}{error}") from error
        room = self.model.language_model.max_positions
        if len(encoded) + decoding.max_new_tokens > room:
            seen = f", {sum(visual)} of them for {_count(len(visual), 'picture')}" if visual else ""
            raise ValueError(
                f"{place}the prompt has {len(encoded)} tokens{seen}; with up to "
                f"{decoding.max_new_tokens} new ones that is above the {room} positions of the "
                "model. Use a smaller picture, fewer of them, a shorter text or fewer new tokens."
            )
        return encoded

    def batches(self, prompts: Sequence[int], decoding: Decoding) -> list[list[int]]:
        """Numbers of prompts that are answered together, of like lengths: little padding.

        Args:
            prompts: their lengths in tokens.
            decoding: how long answers may become.
        """
        batches: list[list[int]] = []
        for number in sorted(range(len(prompts)), key=lambda n: -prompts[n]):  # longest first
            last = batches[-1] if batches else []
            longest = prompts[last[0]] if last else 0
            if last and (len(last) + 1) * (longest + decoding.max_new_tokens) <= self.slots:
                last.append(number)
            else:
                batches.append([number])
        return batches

    def _generate(
        self,
        questions: Sequence[Question],
        decoding: Decoding,
        streamer: TextStreamer | None = None,
    ) -> list[Answer]:
        text = self.encoder.text
        items = [self._item(each, self.encoded(each, decoding)) for each in questions]
        sampling = decoding.sampling(text.end_id)
        seeds = [question.seed for question in questions]
        answers = generate(self.model, self._batch(items), sampling, seeds, streamer)
        most = decoding.max_new_tokens
        return [Answer(text.decode(ids), len(ids), len(ids) < most) for ids in answers]

    def _batch(self, items: Sequence[Item]) -> PackedBatch:
        """A row for each item, where the model is."""
        text, length = self.encoder.text, max(len(item.encoded) for item in items)
        batch = collate([[item] for item in items], length, text.pad_id, self.encoder.cutter)
        return batch.to(next(self.model.parameters()).device)

    def _item(self, question: Question, encoded: Encoded) -> Item:
        """Tokens and pixels, which are decoded only for the batch at hand."""
        try:
            return Item(encoded, [image.pixels() for image in question.images], "asked")
        except BadSampleError as error:
            place = f"{question.name}: " if question.name else ""
            raise ValueError(f"{place}a picture cannot be decoded: {error}") from error


class _Words(TextStreamer):
    """Hands on whole words; no space before the first, none after the last."""

    def __init__(self, tokenizer: Any, write: Callable[[str], None]) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self._write, self._held, self._begun = write, "", False

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Called by Transformers with every piece of text that will not change any more."""
        text = self._held + (text if self._begun else text.lstrip())
        kept = text.rstrip()
        self._held = text[len(kept) :]
        if kept:
            self._begun = True
            self._write(kept)


def ask(text: str, images: Sequence[StoredImage] = (), seed: int = 0, name: str = "") -> Question:
    """A user's words as a question; pictures without a placeholder stand in front of them."""
    return Question([user_turn(text, len(images))], images, seed, name)


def user_turn(text: str, num_images: int) -> Turn:
    """What a user says; pictures without a placeholder stand in front."""
    placed = text if IMAGE in text else f"{IMAGE}\n" * num_images + text
    return {"role": "user", "content": placed}


def check_placeholders(turns: Sequence[Turn], num_images: int, place: str = "") -> None:
    """Raise ValueError unless every placeholder has a picture and every picture a placeholder.

    Args:
        turns: of the conversation.
        num_images: pictures that came with it.
        place: begins the message.
    """
    placed = sum(turn["content"].count(IMAGE) for turn in turns if turn["role"] == "user")
    if placed > num_images:
        raise ValueError(
            f"{place}no image for {IMAGE}: the prompt has {_count(placed, 'placeholder')} and came "
            f"with {_count(num_images, 'picture')}. Add a picture for each, or take {IMAGE} out."
        )
    if placed < num_images:
        raise ValueError(
            f"{place}the prompt came with {_count(num_images, 'picture')} but has only "
            f"{_count(placed, 'placeholder')} {IMAGE}, so some would not be seen. Write {IMAGE} "
            "where each belongs, or nowhere: then all stand in front."
        )


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number or 'no'} {thing}s"
