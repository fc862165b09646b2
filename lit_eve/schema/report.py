"""Is this experiment right? Answers before anything heavy is imported.

Nothing here may import torch or lightning, so that a typo costs a fraction of a second.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lit_eve.schema import Experiment, ExperimentErrors, Problem, load
from lit_eve.schema.benchmarks import Benchmark, is_benchmark, load_benchmark
from lit_eve.schema.training import Transform

Paint = Callable[[str, str], str]
"""Text and a style to the text as it is printed."""


@dataclass(frozen=True)
class Report:
    """The experiment, or everything that is wrong with it."""

    path: str
    experiment: Experiment | Benchmark | None
    problems: Sequence[Problem] = ()

    @property
    def ok(self) -> bool:
        """Whether the experiment can be run."""
        return self.experiment is not None

    def text(self, markup: bool = False) -> str:
        """The report for a terminal.

        Args:
            markup: with the tags of `rich`; what users wrote is escaped.
        """
        paint = _rich if markup else _plain
        if self.experiment is not None:
            return "\n".join(_summary(self.path, self.experiment, paint))
        lines = [line for problem in self.problems for line in _lines(problem, paint)]
        count = len(self.problems)
        lines.append(paint(f"{count} mistake{'s' if count > 1 else ''} in {self.path}", "bold red"))
        return "\n".join(lines)


def check(
    path: str | os.PathLike[str], overrides: Sequence[str] = (), tiny: bool = False
) -> Report:
    """Whether an experiment file, or that of an evaluation task, is right.

    Args:
        path: the YAML file.
        overrides: words such as `stages.learn.batch=64`.
        tiny: check what `--tiny` makes of it.
    """
    try:
        if is_benchmark(path):
            return Report(str(path), load_benchmark(path, tuple(overrides)))
        return Report(str(path), load(path, overrides, tiny))
    except ExperimentErrors as errors:
        return Report(str(path), None, errors.problems)


def _plain(text: str, style: str) -> str:
    return text


def _rich(text: str, style: str) -> str:
    from rich.markup import escape

    return f"[{style}]{escape(text)}[/{style}]" if style else escape(text)


def _lines(problem: Problem, paint: Paint) -> Iterator[str]:
    """A problem, what stands there in the file, and the way out."""
    key = f" {problem.key}" if problem.key else ""
    yield paint(f"{problem.place}:", "cyan") + paint(key, "bold")
    excerpt = _excerpt(problem)
    if excerpt is not None:
        line, column = excerpt
        yield paint(f"    {line}", "")
        yield paint(f"    {' ' * column}^", "red")
    yield paint(f"  {problem.message.rstrip('.')}.", "red")
    if problem.suggestion:
        yield paint(f"  {problem.suggestion}", "green")
    yield ""


_WIDTH = 88
"""Characters of a line of the file that are shown."""


def _excerpt(problem: Problem) -> tuple[str, int] | None:
    """The line with the problem, cut to what fits around it, and the column in it."""
    if problem.line is None or problem.column is None:
        return None
    try:
        line = Path(problem.file).read_text(encoding="utf-8").splitlines()[problem.line - 1]
    except (OSError, UnicodeDecodeError, IndexError):
        return None
    start = len(line) - len(line.lstrip())
    if len(line) - start > _WIDTH:
        start = max(start, problem.column - 1 - _WIDTH // 2)
    return line[start : start + _WIDTH].rstrip(), max(0, problem.column - 1 - start)


def _summary(path: str, experiment: Experiment | Benchmark, paint: Paint) -> Iterator[str]:
    if isinstance(experiment, Benchmark):
        yield paint(f"{path} is right", "bold green") + paint(f": {experiment.about}", "")
        how = f"  {experiment.data.type}, judged by {experiment.metric.type}"
        yield paint(how, "")
        return
    count = len(experiment.stages)
    yield paint(f"{path} is right", "bold green") + paint(
        f": {experiment.name}, {experiment.model.type}, {count} stage{'s' if count > 1 else ''}", ""
    )
    for name, stage in experiment.stages.items():
        if isinstance(stage, Transform):
            what = f": {stage.do}" + (f" {stage.weights}" if stage.weights else "")
            yield paint(f"  {name}", "bold") + paint(what, "")
            continue
        data = " + ".join(stage.data)
        yield paint(f"  {name}", "bold") + paint(
            f": {stage.task} on {data} for {stage.budget}, trains {', '.join(stage.train)}", ""
        )
