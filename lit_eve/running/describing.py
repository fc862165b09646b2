"""A run in words, for people who browse runs: question, plan, result, what to type."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lit_eve.planning.plan import StagePlan, quantity
from lit_eve.running.kinds import Kind
from lit_eve.schema import Experiment
from lit_eve.schema.training import Stage
from lit_eve.tracking.markdown import table
from lit_eve.tracking.redact import redact
from lit_eve.tracking.spool import MAX_PARAMS

BEST_SCORES = 4
"""Scores in the first line, which lists of runs show."""
MAX_VALUE = 100
"""Characters of a parameter."""
_CHANGES_NO_NUMBER = (
    "name",
    "question",
    "tracking",
    "hardware",
    "checkpoint",
    "evaluate",
    "search",
)


@dataclass(frozen=True)
class Outcome:
    """How a run stands."""

    word: str
    """running, finished, failed, stopped or pruned."""
    reason: str = ""
    seconds: float | None = None


def parameters(experiment: Experiment, changes: Sequence[str], count: int) -> dict[str, str]:
    """The few values that vary between runs: what was changed for this one, then what matters.

    Args:
        experiment: as it runs.
        changes: the command line's overrides, `a.b=1` each.
        count: the model's parameters.
    """
    found: dict[str, str] = {}
    for change in changes:
        path, _, value = redact(change).partition("=")
        if path.split(".")[0] not in _CHANGES_NO_NUMBER:
            found[path] = value[:MAX_VALUE]
    found.setdefault("seed", str(experiment.seed))
    found["parameters"] = quantity(count)
    name, stage = list(experiment.trained.items())[-1] if experiment.trained else ("", None)
    if stage is not None:
        part, rates = next(iter(_plain(stage)["train"].items()))
        rate = rates.get("lr", rates) if isinstance(rates, Mapping) else rates
        if isinstance(rate, Mapping):
            rate = f"{rate['from']} to {rate['to']}"
        found.setdefault(f"stages.{name}.for", str(stage.budget))
        found.setdefault(f"stages.{name}.batch", str(stage.batch))
        found.setdefault(f"stages.{name}.train.{part}", str(rate)[:MAX_VALUE])
    return dict(list(found.items())[:MAX_PARAMS])


def description(
    kind: Kind[Any, Any],
    plans: Mapping[str, StagePlan],
    summaries: Mapping[str, Mapping[str, Any]],
    outcome: Outcome,
) -> str:
    """The run in markdown: the verdict first, since lists show the beginning.

    Args:
        kind: the run.
        plans: of the stages that train, by name.
        summaries: of the stages that are finished, by name.
        outcome: how the run stands.
    """
    run, parts = kind.directory.id, [_verdict(kind, summaries, outcome)]
    parts.append(kind.experiment.question or "")
    parts.append(table(list(_plan_rows(kind, plans))))
    scores = list(_score_rows(kind, summaries))
    if len(scores) > 1:
        parts.append(table(scores))
    go_on = "resume" if outcome.word in ("failed", "stopped", "pruned") else "evaluate"
    commands = (f"lit-eve {go_on} {run}", f"lit-eve diff {run} RUN", f"lit-eve sync {run}")
    parts.append(" · ".join(f"`{command}`" for command in commands))
    parts.append(
        "Files: `config/` among the artifacts holds the resolved experiment, the plan, digests of "
        "the data, the environment and uncommitted changes. Stages are the child runs."
    )
    return "\n\n".join(part for part in parts if part)


def _verdict(
    kind: Kind[Any, Any], summaries: Mapping[str, Mapping[str, Any]], outcome: Outcome
) -> str:
    told = [summary["scores"] for summary in summaries.values() if summary.get("scores")]
    wanted = kind.objective[0].removeprefix("test/")
    scores = sorted(told[-1], key=lambda name: name != wanted)[:BEST_SCORES] if told else []
    words = ", ".join(f"{name} {kind.written(name, told[-1][name])}" for name in scores)
    line = f"**{outcome.word}{': ' + words if words else ''}**"
    if outcome.seconds is not None:
        line += f" after {outcome.seconds / 60:.1f} minutes"
    return line + (f"\n\n{outcome.reason}" if outcome.reason else "")


def _plan_rows(kind: Kind[Any, Any], plans: Mapping[str, StagePlan]) -> Iterator[Sequence[str]]:
    yield ("stage", "trains", "on", "for", "batch", "parameters")
    for name, stage in kind.experiment.stages.items():
        if not isinstance(stage, Stage):
            yield (name, getattr(stage, "do", ""), "", "", "", "")
            continue
        trains = ", ".join(f"{part} {rate}" for part, rate in plans[name].trains.items())
        data = ", ".join(f"{name} {weight:g}" for name, weight in stage.data.items())
        trained = f"{quantity(plans[name].trainable)} of {quantity(plans[name].total)}"
        yield (name, trains, data, str(stage.budget), str(stage.batch), trained)


def _score_rows(
    kind: Kind[Any, Any], summaries: Mapping[str, Mapping[str, Any]]
) -> Iterator[Sequence[str]]:
    told = {stage: summary["scores"] for stage, summary in summaries.items() if "scores" in summary}
    yield ("score", *told)
    for name in dict.fromkeys(name for scores in told.values() for name in scores):
        values = [scores.get(name) for scores in told.values()]
        yield (name, *("" if v is None else kind.written(name, v) for v in values))


def _plain(stage: Stage) -> dict[str, Any]:
    return stage.model_dump(by_alias=True)
