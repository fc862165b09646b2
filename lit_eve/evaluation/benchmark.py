"""Tasks put to a trained model: questions, answers, points, scores with their intervals."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import lit_eve
from lit_eve.assemble import benchmarks as assemble
from lit_eve.inference.assistant import Answer, Assistant, Decoding, Question, user_turn
from lit_eve.inference.requests import read_picture, stored
from lit_eve.metrics.bootstrap import Estimate, as_json, estimates
from lit_eve.metrics.judging import Expected, Judge
from lit_eve.models.likelihood import Likelihood
from lit_eve.running.bars import progress_line
from lit_eve.running.directory import RunDirectory
from lit_eve.schema.benchmarks import Benchmark, limited, load_benchmark
from lit_eve.schema.metrics import MultipleChoice
from lit_eve_data.benchmarks.base import BenchmarkQuestion, Picture, check_pictures
from lit_eve_data.disk.records import StoredImage

FOLDER = "evaluations"
"""Below a stage: a folder for each task."""
PACKAGES = ("torch", "transformers", "tokenizers", "pillow", "torchmetrics", "numpy")


@dataclass(frozen=True)
class Prepared:
    """A task with everything that can be wrong with it looked at."""

    benchmark: Benchmark
    questions: Sequence[BenchmarkQuestion]
    judge: Judge
    data: dict[str, str]
    """sha256 of the files that say what is asked."""


@dataclass(frozen=True)
class Result:
    """Scores of a task, and the folder that has them."""

    name: str
    overall: dict[str, Estimate]
    categories: dict[str, dict[str, Estimate]]
    folder: Path


def prepare(file: Path, data: Path, limit: int | None, console: Console) -> Prepared:
    """Read a task and its questions, before any model is loaded.

    Args:
        file: of the task.
        data: root of prepared data.
        limit: fewer questions than the file says.
        console: where the progress of preparing is shown.

    Raises:
        ValueError: if the file, or a file of its data, is not right.
    """
    benchmark = load_benchmark(file)
    benchmark = benchmark if limit is None else limited(benchmark, limit)
    with progress_line(console, f"preparing {benchmark.name}", "samples") as bar:
        questions, files = assemble.questions(benchmark, data, bar)
    if not questions:
        raise ValueError(f"{file} asks nothing: its data holds no questions.")
    check_pictures(questions)
    judge = assemble.judge(benchmark)
    judge.read([question.answers for question in questions])
    return Prepared(benchmark, questions, judge, {path.name: _digest(path) for path in files})


def evaluate_task(
    assistant: Assistant, prepared: Prepared, directory: RunDirectory, console: Console
) -> Result:
    """Put a task to a model; answers and result are kept in the run.

    Args:
        assistant: the model.
        prepared: the task.
        directory: the run; `<stage>/evaluations/<task>/` is written.
        console: what the user sees.
    """
    benchmark, judge = prepared.benchmark, prepared.judge
    folder = directory.stage(assistant.stage) / FOLDER / benchmark.name
    folder.mkdir(parents=True, exist_ok=True)
    points: list[tuple[float, ...]] = []
    partial = folder / "answers.jsonl.partial"
    with partial.open("w", encoding="utf-8") as file:
        for question, given in zip(
            prepared.questions, _answers(assistant, prepared, console), strict=True
        ):
            expected = _expected(question)
            points.append(judge.judge(expected, given["answer"]))
            file.write(json.dumps(_line(question, given, judge, points[-1]), ensure_ascii=False))
            file.write("\n")
    partial.replace(folder / "answers.jsonl")
    groups = [question.group or question.id for question in prepared.questions]
    categories = [question.category for question in prepared.questions]
    overall, parts = estimates(judge, points, groups, categories, benchmark.seed)
    result = Result(benchmark.name, overall, parts, folder)
    about = _about(assistant, prepared, len(set(groups)))
    scores = {
        "scores": as_json(overall),
        "categories": {category: as_json(found) for category, found in parts.items()},
    }
    directory.write_json(str((folder / "result.json").relative_to(directory.path)), scores | about)
    return result


def show(results: Sequence[Result], console: Console) -> None:
    """Scores as a table, each with its interval."""
    table = Table("task", "score", "value", "95 % interval")
    for result in results:
        for place, (name, found) in enumerate(result.overall.items()):
            interval = f"{_written(found.low)} to {_written(found.high)}"
            task = result.name if place == 0 else ""
            table.add_row(task, name, _written(found.value), interval)
    console.print(table)


def question_of(question: BenchmarkQuestion, benchmark: Benchmark, number: int) -> Question:
    """A question as the model is asked it, its pictures read."""
    choices = "\n".join(
        f"{chr(ord('A') + place)}. {choice}" for place, choice in enumerate(question.choices)
    )
    text = benchmark.prompt.format(
        question=question.text, choices=choices, context=question.context
    ).strip()
    images = [_read(picture, question) for picture in question.pictures]
    earlier = sum(turn["content"].count("<image>") for turn in question.history)
    turn = user_turn(text, len(images) - earlier)
    name = f"{benchmark.name}, question {question.id}"
    return Question([*question.history, turn], images, benchmark.seed + number, name)


def _answers(
    assistant: Assistant, prepared: Prepared, console: Console
) -> Iterator[dict[str, Any]]:
    """What the model says to every question, and what else is worth keeping of it."""
    benchmark, questions = prepared.benchmark, prepared.questions
    asked = (question_of(question, benchmark, n) for n, question in enumerate(questions))
    metric = benchmark.metric
    with progress_line(console, benchmark.name, "questions") as bar:
        bar(0, len(questions))
        if isinstance(metric, MultipleChoice) and metric.by == "likelihood":
            choices = [question.choices for question in questions]
            for answers, found in zip(
                choices, assistant.likelihoods(asked, choices, bar), strict=True
            ):
                worth = [_worth(one, a, metric.per) for one, a in zip(found, answers, strict=True)]
                best = max(range(len(worth)), key=worth.__getitem__)
                yield {"answer": chr(ord("A") + best), "likelihoods": worth}
            return
        decoding = Decoding(benchmark.max_new_tokens, benchmark.temperature)
        for answer in assistant.answers(asked, decoding, bar, len(questions)):
            yield _kept(answer)


def _kept(answer: Answer) -> dict[str, Any]:
    return {"answer": answer.text, "tokens": answer.tokens, "finished": answer.finished}


def _worth(found: Likelihood, answer: str, per: str) -> float:
    """A likelihood as choices are compared by it."""
    lengths = {"answer": 1, "token": found.tokens, "character": len(answer)}
    return found.total / max(1, lengths[per])


def _expected(question: BenchmarkQuestion) -> Expected:
    return Expected(
        question.answers, question.choices, question.right, question.category, question.facts
    )


def _line(
    question: BenchmarkQuestion, given: dict[str, Any], judge: Judge, points: tuple[float, ...]
) -> dict[str, Any]:
    """A line of the file of answers."""
    line: dict[str, Any] = {"id": question.id, "question": question.text}
    if question.choices:
        line |= {"choices": question.choices, "right": chr(ord("A") + question.right)}
    line |= {"expected": question.answers, **given}
    if question.category:
        line["category"] = question.category
    return line | {"points": dict(zip(judge.points, points, strict=True))}


def _about(assistant: Assistant, prepared: Prepared, groups: int) -> dict[str, Any]:
    """All that a repetition needs."""
    return {
        "task": prepared.benchmark.model_dump(mode="json", by_alias=True),
        "questions": len(prepared.questions),
        "groups": groups,
        "data": prepared.data,
        "stage": assistant.stage,
        "weights": {"file": assistant.weights.name, "bytes": _size(assistant.weights)},
        "versions": {"lit-eve": lit_eve.__version__, **{n: version(n) for n in PACKAGES}},
    }


def _read(picture: Picture, question: BenchmarkQuestion) -> StoredImage:
    if isinstance(picture, StoredImage):
        return picture
    if isinstance(picture, Path):
        return read_picture(picture)
    return stored(picture, f"the picture of question {question.id}")


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _size(file: Path) -> int:
    files = [file] if file.is_file() else [part for part in file.rglob("*") if part.is_file()]
    return sum(part.stat().st_size for part in files)


def _written(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"
