"""A paper's table of runs: one row for each experiment, seeds as mean and standard deviation."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

from lit_eve.comparison.reading import RecordedRun, flat

_NOT_THE_EXPERIMENT = ("seed", "question", "tracking.", "hardware.", "checkpoint.")
"""Keys in which runs of one row may differ: they change no score, or are averaged over."""


@dataclass(frozen=True)
class Cell:
    """A score over the seeds of a row."""

    mean: float
    deviation: float | None
    """Of the sample (n - 1); None for a single run."""


@dataclass(frozen=True)
class Row:
    """Runs that differ in nothing but the seed."""

    label: str
    seeds: int
    cells: Mapping[str, Cell]


def rows(
    runs: Sequence[RecordedRun], stage: str | None = None, metrics: Sequence[str] = ()
) -> list[Row]:
    """Runs grouped by experiment.

    Args:
        runs: in the order of the rows wanted.
        stage: whose scores; None: the last one's that has any.
        metrics: scores wanted, in order; empty for all.

    Raises:
        ValueError: if a run has no scores, a score is unknown, or a seed was run twice: then the
            deviation would be too small.
    """
    groups: dict[str, list[RecordedRun]] = {}
    for run in runs:
        if not run.scores(stage):
            where = f"stage {stage!r}" if stage else "any stage"
            raise ValueError(
                f"{run.label} has no scores of {where}: it cannot stand in a table. Finish it with "
                "`lit-eve resume`, or leave it out."
            )
        groups.setdefault(_identity(run), []).append(run)
    labels = _labels(list(groups.values()))
    return [
        _row(label, group, stage, metrics)
        for label, group in zip(labels, groups.values(), strict=True)
    ]


def _row(
    label: str, group: Sequence[RecordedRun], stage: str | None, metrics: Sequence[str]
) -> Row:
    seeds = [run.seed for run in group]
    if len(set(seeds)) < len(seeds):
        raise ValueError(
            f"{label}: seed {max(seeds, key=seeds.count)} stands there more than once, so the "
            "spread over seeds would look smaller than it is. Leave the copies out."
        )
    scores = [run.scores(stage) for run in group]
    names = list(metrics) or [name for name in scores[0] if all(name in s for s in scores)]
    unknown = [name for name in names if any(name not in s for s in scores)]
    if unknown:
        raise ValueError(
            f"{label} has no score {unknown[0]!r}. Scores there: {', '.join(scores[0])}."
        )
    cells = {name: _cell([s[name] for s in scores]) for name in names}
    return Row(label, len(group), cells)


def _cell(values: Sequence[float]) -> Cell:
    return Cell(mean(values), stdev(values) if len(values) > 1 else None)


def _identity(run: RecordedRun) -> str:
    return repr(sorted(_compared(run).items(), key=lambda item: item[0]))


def _compared(run: RecordedRun) -> dict[str, Any]:
    return {
        key: value
        for key, value in flat(run.experiment).items()
        if not key.startswith(_NOT_THE_EXPERIMENT)
    }


def _labels(groups: Sequence[Sequence[RecordedRun]]) -> list[str]:
    """The experiments' names; where one name stands for several, with what tells them apart."""
    labels = []
    for group in groups:
        name = group[0].name
        same = [_compared(other[0]) for other in groups if other[0].name == name]
        mine = _compared(group[0])
        apart = [key for key in mine if any(other.get(key) != mine[key] for other in same)]
        words = ", ".join(f"{key}={mine[key]}" for key in apart[:3])
        labels.append(f"{name} ({words})" if words else name)
    return labels


def written(table: Sequence[Row], form: str) -> str:
    """The table as `markdown`, `latex` or `csv`.

    Scores are percentages in the first two, plain numbers with their own columns for the
    deviation in the third.
    """
    names = list(dict.fromkeys(name for row in table for name in row.cells))
    return FORMS[form](table, names)


def _markdown(table: Sequence[Row], names: Sequence[str]) -> str:
    lines = [_line(["experiment", "seeds", *names]), _line(["---"] + ["---:"] * (1 + len(names)))]
    for row in table:
        lines.append(_line([row.label, str(row.seeds), *(_shown(row, n, " ± ") for n in names)]))
    return "\n".join(lines)


def _line(words: Sequence[str]) -> str:
    return f"| {' | '.join(words)} |"


def _latex(table: Sequence[Row], names: Sequence[str]) -> str:
    heads = " & ".join(["experiment", "seeds", *map(_escaped, names)])
    lines = [rf"\begin{{tabular}}{{l{'r' * (1 + len(names))}}}", r"\toprule", rf"{heads} \\"]
    lines.append(r"\midrule")
    for row in table:
        cells = [_shown(row, name, r"\,{\scriptsize$\pm$}\,") for name in names]
        lines.append(" & ".join([_escaped(row.label), str(row.seeds), *cells]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"])


def _escaped(text: str) -> str:
    for special in r"_&%#$":
        text = text.replace(special, f"\\{special}")
    return text


def _csv(table: Sequence[Row], names: Sequence[str]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["experiment", "seeds", *(w for n in names for w in (n, f"{n} std"))])
    for row in table:
        numbers: list[float | str] = []
        for name in names:
            cell = row.cells.get(name)
            numbers += ["", ""] if cell is None else [cell.mean, _or_empty(cell.deviation)]
        writer.writerow([row.label, row.seeds, *numbers])
    return text.getvalue().rstrip("\n")


def _or_empty(value: float | None) -> float | str:
    return "" if value is None else value


def _shown(row: Row, name: str, between: str) -> str:
    cell = row.cells.get(name)
    if cell is None:
        return ""
    if cell.deviation is None:
        return f"{100 * cell.mean:.1f}"
    return f"{100 * cell.mean:.1f}{between}{100 * cell.deviation:.1f}"


FORMS: Mapping[str, Callable[[Sequence[Row], Sequence[str]], str]] = {
    "markdown": _markdown,
    "latex": _latex,
    "csv": _csv,
}
