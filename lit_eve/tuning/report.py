"""What a search has found: one HTML file that needs no network, a table, the best experiment."""

from __future__ import annotations

import html
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lit_eve.running.directory import write_atomically
from lit_eve.schema import Experiment
from lit_eve.tuning.figures import figures
from lit_eve.tuning.proposing import Setting, short_names, shown, shown_value
from lit_eve.tuning.slots import REASON, Slots
from lit_eve.tuning.study import RANK, SETTING, SOURCE, Searching

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

REPORT_FILE, BEST_FILE = "report.html", "best.yaml"
MOST_ROWS = 200

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#1f2733;max-width:1100px;margin:2em auto;
padding:0 1em}
h1{font-size:1.5em}h2{font-size:1.1em;margin-top:2em}svg{max-width:100%;height:auto}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}td,th{padding:.25em .8em;
text-align:right;border-bottom:1px solid #e3e6ea}th{color:#6b7686;font-weight:500}
td:first-child,th:first-child,td.text{text-align:left}tr.best td{background:#e9f6ef}
pre{background:#f6f7f9;padding:1em;overflow:auto}.quiet{color:#6b7686}
"""


@dataclass(frozen=True)
class RerunRow:
    """One setting, run again with several seeds."""

    rank: int
    trial: int
    setting: Setting
    values: tuple[float, ...]
    """First objective, one value a seed that has finished."""

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return statistics.fmean(self.values)

    @property
    def spread(self) -> float:
        """Standard deviation over the seeds; 0 for one."""
        return statistics.stdev(self.values) if len(self.values) > 1 else 0.0


def rerun_rows(searching: Searching, reruns: Slots | None) -> list[RerunRow]:
    """Reruns by setting, the best mean first."""
    grouped: dict[int, list[FrozenTrial]] = {}
    for trial in reruns.trials() if reruns else []:
        grouped.setdefault(trial.user_attrs[RANK], []).append(trial)
    rows = [
        RerunRow(rank, group[0].user_attrs[SOURCE], group[0].user_attrs[SETTING], values)
        for rank, group in grouped.items()
        if (values := tuple(t.values[0] for t in group if t.state.name == "COMPLETE"))
    ]
    falling = bool(searching.search.maximize)
    return sorted(rows, key=lambda row: row.mean, reverse=falling)


def best_experiment(searching: Searching, rows: Sequence[RerunRow]) -> Experiment | None:
    """The experiment of the best setting, ready to run: of the reruns if there are any."""
    if rows:
        return searching.place.variations.experiment(rows[0].setting)
    best = searching.best()
    return searching.place.variations.experiment(best[0].params) if best else None


def write(searching: Searching, reruns: Slots | None) -> list[Path]:
    """Write the report and the best experiment into the search's folder.

    Returns:
        What was written.
    """
    folder, rows = searching.place.folder, rerun_rows(searching, reruns)
    written = [write_atomically(folder / REPORT_FILE, page(searching, reruns, rows))]
    best = best_experiment(searching, rows)
    if best is not None:
        head = f"# Best of search {searching.name}.\n# Run:  lit-eve run {BEST_FILE}\n"
        written.append(write_atomically(folder / BEST_FILE, head + best.to_yaml()))
    return written


def page(searching: Searching, reruns: Slots | None, rows: Sequence[RerunRow]) -> str:
    """The report as one HTML page."""
    question = searching.place.experiment.question or ""
    body = [f"<h1>{html.escape(searching.name)}</h1>", f"<p>{html.escape(question)}</p>"]
    body += [f"<p><b>{html.escape(verdict(searching))}</b></p>"]
    if reruns is not None:
        body += ["<h2>The best, with more seeds</h2>", _table(list(_rerun_cells(searching, rows)))]
    metrics = [name for name, _ in searching.search.objectives]
    for title, svg in figures(searching.trials.study, metrics):
        body += [f"<h2>{html.escape(title)}</h2>", svg]
    body += ["<h2>All trials, the best first</h2>", _table(list(cells(searching)), marked=True)]
    best = best_experiment(searching, rows)
    if best is not None:
        body += ["<h2>The best experiment</h2>", f"<pre>{html.escape(best.to_yaml())}</pre>"]
    head = f"<meta charset=utf-8><title>{html.escape(searching.name)}</title>"
    return f"<!doctype html><html><head>{head}<style>{_STYLE}</style></head><body>" + "\n".join(
        [*body, "</body></html>\n"]
    )


def verdict(searching: Searching) -> str:
    """How far the search is and what it found, in one line."""
    counts = searching.trials.counts()
    done = sum(counts.get(word, 0) for word in ("complete", "pruned", "fail"))
    words = [
        f"{done} of {sum(counts.values())} trials",
        *(f"{counts[k]} {w}" for k, w in (("pruned", "pruned"), ("fail", "failed")) if k in counts),
    ]
    best = searching.best()
    if not best:
        return ", ".join([*words, "nothing good yet"])
    objectives = searching.search.objectives
    if len(objectives) > 1:
        return ", ".join([*words, f"a front of {len(best)}"])
    name, value, setting = objectives[0][0], best[0].values[0], shown(best[0].params)
    return f"{', '.join(words)}: best {name} {value:.5g} by trial {best[0].number}, {setting}"


def cells(searching: Searching) -> Iterator[list[str]]:
    """Rows of the table of trials, the first one its head; the best first, then by number."""
    search = searching.search
    metrics = [name for name, _ in search.objectives]
    names = short_names(list(search.space))
    yield ["trial", *metrics, *names.values(), "steps", "minutes", "state"]
    trials = searching.trials.trials()
    best = [trial.number for trial in searching.best(len(trials))]
    order = {number: place for place, number in enumerate(best)}
    for trial in sorted(trials, key=lambda t: (order.get(t.number, len(order)), t.number)):
        if trial.state.name == "WAITING" and not trial.params:
            continue
        values = trial.values or [None] * len(metrics)
        seconds = trial.duration.total_seconds() if trial.duration else None
        state = trial.state.name.lower()
        if trial.state.name == "COMPLETE" and trial.number not in order and len(metrics) == 1:
            state = "does not meet what is required"
        reason = trial.user_attrs.get(REASON, "") if trial.state.name == "FAIL" else ""
        yield [
            str(trial.number),
            *("" if value is None else f"{value:.5g}" for value in values),
            *(shown_value(trial.params[key]) if key in trial.params else "" for key in names),
            str(trial.last_step or ""),
            "" if seconds is None else f"{seconds / 60:.1f}",
            f"{state}: {reason}" if reason else state,
        ]


def _rerun_cells(searching: Searching, rows: Sequence[RerunRow]) -> Iterator[list[str]]:
    metric = searching.search.objectives[0][0]
    yield ["rank by one seed", "trial", f"{metric}, mean", "deviation", "seeds", "setting"]
    for row in rows:
        numbers = [f"{row.mean:.5g}", f"{row.spread:.2g}", str(len(row.values))]
        yield [str(row.rank), str(row.trial), *numbers, shown(row.setting)]


def rerun_cells(searching: Searching, reruns: Slots | None) -> list[list[str]]:
    """Rows of the table of reruns, the first one its head; empty without `then:`."""
    rows = rerun_rows(searching, reruns)
    return list(_rerun_cells(searching, rows)) if rows else []


def _table(rows: Sequence[Sequence[str]], marked: bool = False) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in rows[0])
    lines = [f"<tr>{head}</tr>"]
    for number, row in enumerate(rows[1 : MOST_ROWS + 1]):
        kind = ' class="best"' if marked and number == 0 and "complete" in row[-1] else ""
        text = "".join(f"<td>{html.escape(cell)}</td>" for cell in row[:-1])
        lines.append(f'<tr{kind}>{text}<td class="text">{html.escape(row[-1])}</td></tr>')
    return f"<table>{''.join(lines)}</table>"
