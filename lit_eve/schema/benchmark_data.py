"""Where the questions of evaluation tasks come from: public formats, one's own, prepared data."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from lit_eve.schema.addresses import Address
from lit_eve.schema.base import Strict
from lit_eve.schema.datasets import Scenes
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
