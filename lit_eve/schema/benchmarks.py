"""Evaluation tasks: a dataset, a prompt and a metric, declared in a file of their own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path as FilePath
from string import Formatter
from typing import Annotated, ClassVar, Literal, get_args

from pydantic import Field, ValidationError

from lit_eve.schema.addresses import Address
from lit_eve.schema.base import Finding, Name, NonNegativeReal, Positive, PositiveReal, Strict
from lit_eve.schema.datasets import Scenes
from lit_eve.schema.explaining import explain
from lit_eve.schema.interpolation import interpolate
from lit_eve.schema.merging import override, read
from lit_eve.schema.problems import ExperimentErrors, Problem, advise, nearest
from lit_eve.schema.trees import Node
from lit_eve.schema.units import PositiveCount

Split = Literal["train", "val", "test"]
PLAIN = ("question",)
CHOOSING = ("question", "choices", "context")


class Questions(Strict):
    """Where questions come from, and which words a prompt may use."""

    words: ClassVar[tuple[str, ...]] = PLAIN
    """What `{...}` in the prompt may name."""
    gives: ClassVar[frozenset[str]] = frozenset({"answers"})
    """What every question has: answers (in words), choices, yes_no, box, kinds."""


class Local(Questions):
    """Files of a folder, as their authors publish them."""

    path: Address
    """The folder; seen from the root of prepared data (`--data`) if it is relative."""


class KindsQuestions(Questions):
    """Samples of a prepared dataset, kind by kind."""

    split: Split = "test"
    """Part of the dataset."""
    each: PositiveCount | None = None
    """Questions of each kind; all if left out."""


class ScenesQuestions(KindsQuestions):
    """The built-in scenes: their held-out questions, of scans that no training has seen."""

    gives = frozenset({"answers", "kinds"})
    type: Literal["scenes"]
    options: Scenes = Field(default_factory=lambda: Scenes(type="scenes"))
    """As a dataset of an experiment."""


class PreparedQuestions(KindsQuestions):
    """A dataset of `lit-eve prepare`; the last answer of each conversation is asked for."""

    gives = frozenset({"answers", "kinds", "box"})
    type: Literal["litdata"]
    path: Address
    """Its folder; seen from the root of prepared data if it is relative."""


class LineQuestions(Local):
    """A JSON object a line: `question`, `image` or `images`, `answer` or `answers`, `choices`."""

    words = CHOOSING
    gives = frozenset({"answers", "references", "choices", "yes_no", "box"})
    type: Literal["lines"]
    questions: str = "questions.jsonl"
    """The file."""
    images: str = "."
    """Folder of the pictures."""


class Vqav2(Local):
    """VQAv2 (also OK-VQA): questions and annotations in two JSON files, COCO's pictures."""

    gives = frozenset({"answers", "references"})
    type: Literal["vqav2"]
    questions: str = "v2_OpenEnded_mscoco_val2014_questions.json"
    """File of questions."""
    annotations: str = "v2_mscoco_val2014_annotations.json"
    """File of ten answers to each."""
    images: str = "val2014"
    """Folder of the pictures."""
    image_name: str = "COCO_val2014_{:012d}.jpg"
    """A picture's file by its number."""


class Gqa(Local):
    """GQA: one JSON file of balanced questions."""

    type: Literal["gqa"]
    questions: str = "testdev_balanced_questions.json"
    """File of questions."""
    images: str = "images"
    """Folder of the pictures."""


class TextVqa(Local):
    """TextVQA: one JSON file of questions about text in pictures, ten answers to each."""

    gives = frozenset({"answers", "references"})
    type: Literal["textvqa"]
    questions: str = "TextVQA_0.5.1_val.json"
    """File of questions."""
    images: str = "train_images"
    """Folder of the pictures; those of the validation split lie in `train_images`, too."""


class Pope(Local):
    """POPE: is there such an object in the picture, a JSON object a line."""

    gives = frozenset({"answers", "yes_no"})
    type: Literal["pope"]
    questions: str = "coco_pope_random.json"
    """File of questions."""
    images: str = "val2014"
    """Folder of the pictures."""


class Mme(Local):
    """MME: a folder for each of 14 categories; two questions about every picture, yes and no."""

    gives = frozenset({"answers", "yes_no"})
    type: Literal["mme"]


class MmBench(Local):
    """MMBench: a table that holds the pictures; choices rotate, and all rotations must be right."""

    words = CHOOSING
    gives = frozenset({"answers", "choices"})
    type: Literal["mmbench"]
    questions: str = "MMBench_DEV_EN.tsv"
    """The table."""


class ScienceQa(Local):
    """ScienceQA: problems with a hint, some with a picture."""

    words = CHOOSING
    gives = frozenset({"answers", "choices"})
    type: Literal["scienceqa"]
    problems: str = "problems.json"
    """File of problems."""
    splits: str = "pid_splits.json"
    """File that says which problem belongs where."""
    split: str = "test"
    """Part of the dataset, as that file calls it."""
    images: str = "images/test"
    """Folder of the pictures."""
    with_image: bool = False
    """Only problems that have a picture."""


class Seed(Local):
    """SEED-Bench: multiple choice in nine dimensions; its questions about videos are left out."""

    words = CHOOSING
    gives = frozenset({"answers", "choices"})
    type: Literal["seed"]
    questions: str = "SEED-Bench.json"
    """File of questions."""
    images: str = "SEED-Bench-image"
    """Folder of the pictures."""


Source = Annotated[
    ScenesQuestions
    | PreparedQuestions
    | LineQuestions
    | Vqav2
    | Gqa
    | TextVqa
    | Pope
    | Mme
    | MmBench
    | ScienceQa
    | Seed,
    Field(discriminator="type"),
]
"""Where questions come from."""


class Measure(Strict):
    """How answers are judged."""

    needs: ClassVar[str] = "answers"
    """What of a question they are judged by."""


class ExactMatch(Measure):
    """The answer, word for word; case, spacing and a full stop at the end do not count."""

    type: Literal["exact_match"]
    articles: bool = True
    """Whether articles and punctuation count."""


class VqaAccuracy(Measure):
    """VQA's accuracy: right if three of ten people said so."""

    needs = "references"
    type: Literal["vqa_accuracy"]


class MultipleChoice(Measure):
    """One of several choices, by its letter in the answer or by the likelihood of its words."""

    needs = "choices"
    type: Literal["multiple_choice"]
    by: Literal["letter", "likelihood"] = "letter"
    """letter: the model writes it. likelihood: the choice whose words are likeliest."""
    per: Literal["answer", "token", "character"] = "answer"
    """What the likelihood is taken by: the whole answer, or its mean."""

    def findings(self) -> Iterator[Finding]:
        """`per` is for likelihoods."""
        if self.by == "letter" and self.per != "answer":
            yield Finding(
                ("per",),
                "answers by letter have no likelihood",
                "Take `per` out, or write `by: likelihood`.",
                (("by",),),
            )


class YesNo(Measure):
    """POPE's: accuracy, precision, recall and F1 of yes, and how often yes is said."""

    needs = "yes_no"
    type: Literal["yes_no"]


class MmeScore(Measure):
    """MME's: per category accuracy plus the share of pictures with both answers right, summed."""

    needs = "yes_no"
    type: Literal["mme"]


class Anls(Measure):
    """Average normalised Levenshtein similarity, of document questions."""

    type: Literal["anls"]
    threshold: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Distances from it on count as wrong."""


class CharacterErrors(Measure):
    """Character error rate: edits by characters of the reference; small is good."""

    type: Literal["cer"]
    case: bool = True
    """Whether case counts."""


class Captions(Measure):
    """BLEU-1 to BLEU-4 and CIDEr-D against all references."""

    type: Literal["captions"]


class BoxOverlap(Measure):
    """The share of boxes that overlap by enough, and the mean overlap."""

    needs = "box"
    type: Literal["box_iou"]
    least: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Overlap that counts as right."""
    scale: PositiveReal = 1.0
    """What the model's coordinates are shares of: 1, 100 or 1000."""


class Kinds(Measure):
    """Each kind of question by what it asks for, as after every training."""

    needs = "kinds"
    type: Literal["kinds"]


Metric = Annotated[
    ExactMatch
    | VqaAccuracy
    | MultipleChoice
    | YesNo
    | MmeScore
    | Anls
    | CharacterErrors
    | Captions
    | BoxOverlap
    | Kinds,
    Field(discriminator="type"),
]
"""How answers are judged."""


class Benchmark(Strict):
    """One evaluation task."""

    name: Name
    """Its name, in results and on disk."""
    about: str
    """What it measures, in a sentence."""
    data: Source
    """The questions."""
    prompt: str = "{question}"
    """What the model is asked; `{question}`, `{choices}` and `{context}` are put in."""
    metric: Metric
    """How answers are judged."""
    max_new_tokens: Positive = 32
    """Longest answer."""
    temperature: NonNegativeReal = 0.0
    """0 takes the likeliest token."""
    seed: int = 0
    """Of what is drawn, and of the confidence intervals."""
    limit: PositiveCount | None = None
    """Only the first questions."""

    def findings(self) -> Iterator[Finding]:
        """The prompt's words exist, and the metric fits the questions."""
        yield from self._prompt_is_filled()
        if self.limit is not None and isinstance(self.data, KindsQuestions):
            yield Finding(
                ("limit",),
                f"{self.data.type} asks kind by kind, so only the first kinds would be asked",
                "Write `each:` in `data:` instead, questions of each kind.",
                (("data", "type"),),
            )
        if self.metric.needs not in self.data.gives:
            yield Finding(
                ("metric", "type"),
                f"{self.metric.type} judges by {_NEEDED[self.metric.needs]}, "
                f"which {self.data.type} has not",
                f"Metrics for {self.data.type}: {', '.join(_metrics(self.data))}.",
                (("data", "type"),),
            )

    def _prompt_is_filled(self) -> Iterator[Finding]:
        known = self.data.words
        try:
            named = [name for _, name, _, _ in Formatter().parse(self.prompt) if name is not None]
        except ValueError as error:
            yield Finding(("prompt",), f"a brace is open ({error})", "Write {{ for a plain brace.")
            return
        for name in named:
            if name not in known:
                yield Finding(
                    ("prompt",),
                    f"{{{name}}} stands for nothing",
                    advise(name, [f"{{{word}}}" for word in known], "words"),
                    (("data", "type"),),
                )
        if "question" not in named:
            yield Finding(("prompt",), "the question is never asked", "Add {question}.")
        letters = isinstance(self.metric, MultipleChoice) and self.metric.by == "letter"
        if letters and "choices" in known and "choices" not in named:
            yield Finding(
                ("prompt",), "the model would not see the letters it shall choose", "Add {choices}."
            )


_NEEDED = {
    "answers": "answers in words",
    "references": "the answers of ten people",
    "choices": "choices",
    "yes_no": "yes and no",
    "box": "boxes",
    "kinds": "kinds of questions",
}


def _metrics(source: Questions) -> list[str]:
    return [
        get_args(kind.model_fields["type"].annotation)[0]
        for kind in Measure.__subclasses__()
        if kind.needs in source.gives
    ]


def load_benchmark(path: str | os.PathLike[str], overrides: tuple[str, ...] = ()) -> Benchmark:
    """The task of a file.

    Raises:
        ExperimentErrors: with everything that is wrong with it, each with its place.
    """
    problems: list[Problem] = []
    tree = interpolate(override(read(FilePath(path)), overrides, problems), problems)
    try:
        benchmark = Benchmark.model_validate(tree.plain(), by_name=False, by_alias=True)
    except ValidationError as error:
        faults = explain(error, Benchmark, tree)
        raise ExperimentErrors([*problems, *(fault.problem for fault in faults)]) from error
    problems += _findings(benchmark, tree)
    if problems:
        raise ExperimentErrors(problems)
    return benchmark


def is_benchmark(path: str | os.PathLike[str]) -> bool:
    """Whether a file is meant to be a task: it has a metric and no model."""
    keys = read(FilePath(path)).block
    return "metric" in keys and "model" not in keys


def _findings(benchmark: Benchmark, tree: Node) -> Iterator[Problem]:
    blocks: list[tuple[tuple[str, ...], Strict]] = [
        ((), benchmark),
        (("data",), benchmark.data),
        (("metric",), benchmark.metric),
    ]
    if isinstance(benchmark.data, ScenesQuestions):
        blocks.append((("data", "options"), benchmark.data.options))
    for path, block in blocks:
        for finding in block.findings():
            whole = (*path, *finding.path)
            found, node = tree.nearest(whole)
            mark = node.mark if found == whole else node.key
            path_told = (*mark.path, *whole[len(found) :])
            yield replace(mark, path=path_told).problem(finding.message, finding.suggestion)


def find_benchmark(name: str, folder: FilePath) -> FilePath:
    """The file of a task: a path, or the name of a file in `folder`.

    Raises:
        ValueError: if there is none, with the nearest names.
    """
    direct = FilePath(name)
    if direct.suffix in (".yaml", ".yml") and direct.is_file():
        return direct
    there = {file.stem: file for file in sorted(folder.glob("*.yaml"))}
    if name in there:
        return there[name]
    near = nearest(name, there)
    hint = f"Did you mean {near!r}? " if near else ""
    known = ", ".join(there) or f"none: {folder} holds no task files"
    raise ValueError(
        f"there is no task {name!r}, so nothing can be measured. {hint}Tasks: {known}. "
        "Name one of them, or the YAML file of your own."
    )


def limited(benchmark: Benchmark, number: int) -> Benchmark:
    """A task with fewer questions: so many in all, or of each kind."""
    if isinstance(benchmark.data, KindsQuestions):
        data = benchmark.data.model_copy(update={"each": number})
        return benchmark.model_copy(update={"data": data})
    return benchmark.model_copy(update={"limit": number})
