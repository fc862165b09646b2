"""A run's own record: what the tracker is told of it, and the process that ships it there."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from lit_eve.planning.plan import StagePlan
from lit_eve.running.describing import Outcome, description, parameters
from lit_eve.running.directory import EXPERIMENT_FILE
from lit_eve.running.kinds import Kind
from lit_eve.running.lineage import DATA_FILE, record_run
from lit_eve.running.stage import RunInterrupted
from lit_eve.schema.running import MLflowTracking
from lit_eve.tracking.environment import git_tags
from lit_eve.tracking.liveness import claim, end_stages
from lit_eve.tracking.runs import final_scores, objective
from lit_eve.tracking.searches import card_of, end_of, shipped_by_search
from lit_eve.tracking.shipper import Shipper, start_shipper
from lit_eve.tracking.spool import Spool

CHANGES = "changes"
"""Key of `environment.json`: what the command line changed in the experiment file."""

Summaries = Mapping[str, Mapping[str, Any]]


@contextmanager
def recorded(
    kind: Kind[Any, Any], plans: Mapping[str, StagePlan], summaries: Summaries
) -> Iterator[None]:
    """Record a run while it runs, and ship it; statuses are true in the end.

    Args:
        kind: the run.
        plans: of the stages that train, by name.
        summaries: of the stages that are finished; filled meanwhile.
    """
    began = time.monotonic()
    spool = _open(kind, plans)
    shipper = _ship(kind, spool)
    try:
        yield
        _sum_up(kind, spool)
        spent = Outcome("finished", seconds=time.monotonic() - began)
        spool.note(description(kind, plans, summaries, spent))
        spool.status("FINISHED")
    except (RunInterrupted, KeyboardInterrupt) as reason:
        status, state = end_of(kind.directory.path)
        word = "pruned" if state == "pruned" else "stopped"
        why = str(reason) or "stopped from the keyboard"
        spool.note(description(kind, plans, summaries, Outcome(word, why)))
        _sum_up(kind, spool)  # of a pruned trial, what it came to
        spool.status(status, state)
        raise
    except BaseException as error:
        why = f"`{type(error).__name__}`: {str(error).splitlines()[0] if str(error) else ''}"
        spool.note(description(kind, plans, summaries, Outcome("failed", why)))
        end_stages(kind.directory.path, "FAILED", "failed")
        spool.status("FAILED")
        raise
    finally:
        spool.close()
        if shipper is not None:
            _end(kind, shipper)


def _open(kind: Kind[Any, Any], plans: Mapping[str, StagePlan]) -> Spool:
    """The run's spool, with all that is known before the first step."""
    experiment, directory = kind.experiment, kind.directory
    card, environment = card_of(directory.path), _environment(kind)
    tags = {"mlflow.runName": directory.id if card is None else card.name}
    tags |= objective(*kind.objective) if card is None else card.tags
    spool = Spool(directory.path / "tracking", tags=tags | git_tags(environment.get("git")))
    spool.status("RUNNING")
    if not spool.known_params:  # a resumed run keeps what it began with
        spool.params(_parameters(kind, plans) if card is None else card.params)
    if card is None:
        spool.about(experiment.question or f"Experiment {experiment.name}.")
    spool.note(description(kind, plans, {}, Outcome("running")))
    record_run(kind, spool)
    for name in (EXPERIMENT_FILE, "environment.json", "plan.json", DATA_FILE):
        spool.artifact(directory.path / name, "config")
    changes = (environment.get("git") or {}).get("diff")
    if changes:
        spool.text("config/git.diff", changes)
    return spool


def _parameters(kind: Kind[Any, Any], plans: Mapping[str, StagePlan]) -> Mapping[str, str]:
    count = max((plan.total for plan in plans.values()), default=0)
    return parameters(kind.experiment, _environment(kind).get(CHANGES, ()), count)


def _sum_up(kind: Kind[Any, Any], spool: Spool) -> None:
    """The last held-out values of the last stage that has begun, for lists of runs."""
    for stage in reversed(list(kind.experiment.stages)):
        scores = final_scores(kind.directory.stage(stage) / "tracking")
        for step, values in scores:
            spool.metrics(values, step)
        if scores:
            return


def _environment(kind: Kind[Any, Any]) -> dict[str, Any]:
    path = kind.directory.path / "environment.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _ship(kind: Kind[Any, Any], spool: Spool) -> Shipper | None:
    """The process that ships the run; None where nobody or the search does it."""
    tracking = kind.experiment.tracking
    if isinstance(tracking, MLflowTracking) and not shipped_by_search():
        return start_shipper(kind.directory.path, tracking.uri.resolved())
    if spool.writes:
        claim(kind.directory.path)
    return None


def _end(kind: Kind[Any, Any], shipper: Shipper) -> None:
    """Wait until the rest is sent, or say how to send it."""

    def say(line: str) -> None:
        kind.console.print(line, highlight=False, soft_wrap=True)

    if not shipper.finish(say=say):
        say(f"not all of it is in MLflow yet ({shipper.store.shown}); nothing is lost. Send it:")
        say(f"  lit-eve sync {kind.directory.path}")
