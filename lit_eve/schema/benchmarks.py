"""Evaluation tasks: a dataset, a prompt and a metric, declared in a file of their own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path as FilePath
from string import Formatter
from typing import get_args

from pydantic import ValidationError

from lit_eve.schema.base import Finding, Name, NonNegativeReal, Positive, Strict
from lit_eve.schema.benchmark_data import KindsQuestions, Questions, ScenesQuestions, Source
from lit_eve.schema.explaining import explain
from lit_eve.schema.interpolation import interpolate
from lit_eve.schema.merging import override, read
from lit_eve.schema.metrics import Measure, Metric, MultipleChoice
from lit_eve.schema.problems import ExperimentErrors, Problem, advise, nearest
from lit_eve.schema.trees import Node
from lit_eve.schema.units import PositiveCount


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
