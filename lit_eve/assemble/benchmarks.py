"""Questions and metrics from the words of a task's file: one visible table per `type:`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lit_eve.assemble.data import dataset
from lit_eve.metrics import choices as choosing
from lit_eve.metrics import words
from lit_eve.metrics.captions import Captions
from lit_eve.metrics.judging import Judge
from lit_eve.schema import benchmark_data as schema
from lit_eve.schema.benchmarks import Benchmark
from lit_eve_data.benchmarks import choices, open_questions, yes_no
from lit_eve_data.benchmarks.base import BenchmarkQuestion
from lit_eve_data.benchmarks.prepared import prepared
from lit_eve_data.disk.manifest import NAME
from lit_eve_data.preparing.prepare import Progress

Options = Any
"""A block of the schema; each function of a table knows its own class."""
Found = tuple[list[BenchmarkQuestion], list[Path]]
"""Questions, and the files that say what they are."""


def _scenes(options: schema.ScenesQuestions, root: Path, progress: Progress | None) -> Found:
    folder = dataset(options.options, root, progress)
    return prepared(folder, options.split, options.each), [folder / NAME]


def _litdata(options: schema.PreparedQuestions, root: Path, progress: Progress | None) -> Found:
    folder = root / options.path.resolved()
    return prepared(folder, options.split, options.each), [folder / NAME]


def _lines(options: schema.LineQuestions, root: Path, progress: Progress | None) -> Found:
    folder = root / options.path.resolved()
    file = folder / options.questions
    return open_questions.lines(file, folder / options.images), [file]


def _vqav2(options: schema.Vqav2, root: Path, progress: Progress | None) -> Found:
    folder = root / options.path.resolved()
    asked, said = folder / options.questions, folder / options.annotations
    found = open_questions.vqav2(asked, said, folder / options.images, options.image_name)
    return found, [asked, said]


def _gqa(options: schema.Gqa, root: Path, progress: Progress | None) -> Found:
    folder = root / options.path.resolved()
    file = folder / options.questions
    return open_questions.gqa(file, folder / options.images), [file]


def _textvqa(options: schema.TextVqa, root: Path, progress: Progress | None) -> Found:
    folder = root / options.path.resolved()
    file = folder / options.questions
    return open_questions.textvqa(file, folder / options.images), [file]


def _pope(options: schema.Pope, root: Path, progress: Progress | None) -> Found:
    folder = root / options.path.resolved()
    file = folder / options.questions
    return yes_no.pope(file, folder / options.images), [file]


def _mme(options: schema.Mme, root: Path, progress: Progress | None) -> Found:
    folder = root / options.path.resolved()
    return yes_no.mme(folder), sorted(folder.rglob("*.txt"))


def _mmbench(options: schema.MmBench, root: Path, progress: Progress | None) -> Found:
    file = root / options.path.resolved() / options.questions
    return choices.mmbench(file), [file]


def _scienceqa(options: schema.ScienceQa, root: Path, progress: Progress | None) -> Found:
    folder = root / options.path.resolved()
    problems, splits = folder / options.problems, folder / options.splits
    images, only = folder / options.images, options.with_image
    return choices.scienceqa(problems, splits, options.split, images, only), [problems, splits]


def _seed(options: schema.Seed, root: Path, progress: Progress | None) -> Found:
    folder = root / options.path.resolved()
    file = folder / options.questions
    return choices.seed(file, folder / options.images), [file]


QUESTIONS: Mapping[str, Callable[[Options, Path, Progress | None], Found]] = {
    "scenes": _scenes,
    "litdata": _litdata,
    "lines": _lines,
    "vqav2": _vqav2,
    "gqa": _gqa,
    "textvqa": _textvqa,
    "pope": _pope,
    "mme": _mme,
    "mmbench": _mmbench,
    "scienceqa": _scienceqa,
    "seed": _seed,
}

JUDGES: Mapping[str, Callable[[Options], Judge]] = {
    "exact_match": lambda options: words.ExactMatch(options.articles),
    "vqa_accuracy": lambda options: words.VqaAccuracy(),
    "multiple_choice": lambda options: choosing.MultipleChoice(),
    "yes_no": lambda options: choosing.YesNo(),
    "mme": lambda options: choosing.Mme(
        {"perception": yes_no.PERCEPTION, "cognition": yes_no.COGNITION}
    ),
    "anls": lambda options: words.Anls(options.threshold),
    "cer": lambda options: words.CharacterErrors(options.case),
    "captions": lambda options: Captions(),
    "box_iou": lambda options: choosing.BoxOverlap(options.least, options.scale),
    "kinds": lambda options: words.Kinds(),
}


def questions(
    benchmark: Benchmark, root: Path, progress: Progress | None = None
) -> tuple[list[BenchmarkQuestion], list[Path]]:
    """The questions of a task, and the files that say what they are.

    Args:
        benchmark: the task.
        root: of prepared data; relative paths start there.
        progress: told while built-in data is prepared.

    Raises:
        ValueError: if a file is missing or not what its type says.
    """
    found, files = QUESTIONS[benchmark.data.type](benchmark.data, root, progress)
    return found[: benchmark.limit], files


def judge(benchmark: Benchmark) -> Judge:
    """The metric of a task."""
    return JUDGES[benchmark.metric.type](benchmark.metric)
