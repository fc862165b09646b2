"""The classes that lmms-eval asks: its requests to questions, answers in its order.

lmms-eval 0.7 has two kinds of models. `simple` ones are handed a text and a function that gives the
pictures, `chat` ones a function that gives whole messages.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from lmms_eval.api.model import lmms  # type: ignore[import-not-found]
from PIL import Image

from lit_eve.inference.assistant import Decoding, Question, user_turn
from lit_eve.inference.opening import open_assistant
from lit_eve.running.directory import find
from lit_eve_data.disk.records import IMAGE, StoredImage, Turn

DEFAULT_TOKENS = 128
"""Longest answer where a task does not say."""


class _LitEve(lmms):  # type: ignore[misc]  # untyped, and not installed where this is checked
    """A run as lmms-eval wants it: `--model lit_eve --model_args run=quickstart,stage=read`.

    Args:
        run: the run's folder, id or experiment.
        stage: whose weights; the last one's if absent.
        runs: root of all runs.
        batch_tokens: prompt and answer tokens of one batch.
        batch_size: 1, lmms-eval's own default: batches are measured in tokens here.
        max_batch_size: not used for the same reason; lmms-eval hands it to every model.
        device: of lmms-eval's command line; the model is where there is an accelerator.

    Raises:
        ValueError: if the run cannot be opened, or `batch_size` would be ignored.
    """

    def __init__(
        self,
        run: str,
        stage: str | None = None,
        runs: str = "runs",
        batch_tokens: int = 8192,
        batch_size: int | str | None = 1,
        max_batch_size: int | None = None,
        device: str | None = None,
    ) -> None:
        super().__init__()
        if str(batch_size or 1) != "1" or max_batch_size is not None:
            raise ValueError(
                f"--batch_size {batch_size} would be ignored: batches hold as many questions as "
                "fit. Write --model_args run=...,batch_tokens=16384 instead."
            )
        opened = open_assistant(find(str(run), Path(runs)), stage)
        self._assistant = replace(opened, slots=int(batch_tokens))

    @property
    def tokenizer_name(self) -> str:
        """Of the chat template, for lmms-eval's cache of requests."""
        return f"lit_eve-{self._assistant.encoder.text.fingerprint()}"

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        """Minus the logarithm of every continuation's probability, and whether it is greedy.

        lmms-eval's interface speaks of log-probabilities; its tasks take the smallest number as the
        best choice, since its models return losses. So does this one.
        """
        questions, continuations = [], []
        for request in requests:
            context, target, to_visual, number, task, split = request.args
            document = self.task_dict[task][split][number]
            continuations.append([target if isinstance(target, str) else target(document)])
            questions.append(_simple(context, to_visual(document) if to_visual else []))
        stripped = [[one[0].strip()] for one in continuations]
        found = self._assistant.likelihoods(questions, stripped)
        return [(-one[0].total, one[0].greedy) for one in found]

    def generate_until(self, requests: list[Any]) -> list[str]:
        """An answer to every request, in their order."""
        asked = [(self._question(request), self._settings(request)) for request in requests]
        numbered = sorted(enumerate(asked), key=lambda pair: repr(pair[1][1]))
        answers: dict[int, str] = {}
        for _, same in groupby(numbered, key=lambda pair: repr(pair[1][1])):
            part = list(same)
            answers.update(self._answered(part))
        return [answers[number] for number in range(len(requests))]

    def generate_until_multi_round(self, requests: list[Any]) -> list[str]:
        """Refused.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            "this task asks in several rounds that depend on the answers, which lit-eve's model "
            "for lmms-eval does not do: its scores would be of one round. Choose another task."
        )

    def _answered(
        self, part: Sequence[tuple[int, tuple[Question, Mapping[str, Any]]]]
    ) -> Iterator[tuple[int, str]]:
        """Numbers and texts of requests with the same settings."""
        settings = part[0][1][1]
        questions = [question for _, (question, _) in part]
        decoding = _decoding(settings)
        room = self._assistant.model.language_model.max_positions
        longest = max(len(self._assistant.encoded(question, Decoding(1))) for question in questions)
        # Tasks ask for up to thousands of tokens, whatever the model: what has room is enough.
        decoding = replace(decoding, max_new_tokens=min(decoding.max_new_tokens, room - longest))
        stops = settings.get("until") or []
        for (number, _), answer in zip(
            part, self._assistant.answers(questions, decoding), strict=True
        ):
            yield number, _until(answer.text, [stops] if isinstance(stops, str) else stops)

    @abstractmethod
    def _question(self, request: Any) -> Question:
        """What a request asks."""

    @abstractmethod
    def _settings(self, request: Any) -> Mapping[str, Any]:
        """How its answer is to be chosen."""


class LitEveSimple(_LitEve):
    """For tasks that give a text and pictures; also those of likelihood."""

    is_simple: ClassVar[bool] = True

    def _question(self, request: Any) -> Question:
        context, _, to_visual, number, task, split = request.args
        document = self.task_dict[task][split][number]
        return _simple(context, to_visual(document) if to_visual else [])

    def _settings(self, request: Any) -> Mapping[str, Any]:
        settings: Mapping[str, Any] = request.args[1]
        return settings


class LitEveChat(_LitEve):
    """For tasks that give messages."""

    is_simple: ClassVar[bool] = False

    def _question(self, request: Any) -> Question:
        _, to_messages, _, number, task, split = request.args
        images: list[StoredImage] = []
        turns: list[Turn] = []
        for message in to_messages(self.task_dict[task][split][number]):
            words = ""
            for part in message["content"]:
                if part["type"] == "image":
                    images.append(_picture(part["url"]))
                    words += f"{IMAGE}\n"
                elif part["type"] == "text":
                    words += part["text"]
                else:
                    raise ValueError(_unseen(part["type"]))
            turns.append({"role": message["role"], "content": words.strip()})
        return Question(turns, images)

    def _settings(self, request: Any) -> Mapping[str, Any]:
        settings: Mapping[str, Any] = request.args[2]
        return settings


def _simple(context: str, visuals: Any) -> Question:
    """A text and what belongs to it: one thing, or a list."""
    listed = visuals if isinstance(visuals, list | tuple) else [visuals]
    images = [_picture(visual) for visual in listed if visual is not None]
    return Question([user_turn(context.strip(), len(images))], images)


def _picture(visual: Any) -> StoredImage:
    if not isinstance(visual, Image.Image):
        raise ValueError(_unseen(type(visual).__name__))
    return StoredImage.raw(np.asarray(visual.convert("RGB")))


def _unseen(kind: str) -> str:
    return (
        f"this task shows a {kind}, and the model sees pictures only: its scores would be those of "
        "a model that sees nothing. Choose a task about pictures."
    )


def _decoding(settings: Mapping[str, Any]) -> Decoding:
    """lmms-eval's settings, in the words of Transformers, as ours."""
    if int(settings.get("num_beams") or 1) > 1:
        raise ValueError(
            f"num_beams {settings['num_beams']} would be ignored: answers are taken token by "
            "token. Add --gen_kwargs num_beams=1."
        )
    drawn = settings.get("do_sample", True) and float(settings.get("temperature") or 0) > 0
    return Decoding(
        int(settings.get("max_new_tokens") or DEFAULT_TOKENS),
        float(settings["temperature"]) if drawn else 0.0,
        float(settings.get("top_p") or 1) if drawn else 1.0,
    ).checked()


def _until(text: str, stops: Sequence[str]) -> str:
    """The text up to where a task wants it to end."""
    for stop in stops:
        if stop:
            text = text.partition(stop)[0]
    return text.strip()
