"""Saved views of an experiment in the MLflow UI: chosen columns, ordered charts, pictures first.

MLflow keeps a view as a tag of the experiment: a compressed description of the page's state. The
format is internal to its UI, so writing views is best effort: it never fails a run, and a browser
test tells when a new MLflow no longer understands them.

Source:
    the state that MLflow 3.17 itself saves under "Views, Save as new view".
"""

from __future__ import annotations

import base64
import json
import logging
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lit_eve.tracking.runs import OBJECTIVE_TAG
from lit_eve.tracking.spool import STATE_TAG

if TYPE_CHECKING:
    from mlflow import MlflowClient

TAG = "mlflow.sharedViewState."
RUNS_VIEW = "lit-eve-runs"
SEARCH_VIEW = "lit-eve-search"
KIND_TAG = "lit_eve.kind"
MAX_CHARTS = 60
_GROUPS = ("val", "test", "train", "codebook", "optim", "perf")
_WRITTEN = 1_700_000_000_000
"""Time stamp of our own views: a view that somebody saved anew has another, and stays as it is."""

_log = logging.getLogger(__name__)


@dataclass
class Contents:
    """What an experiment has to show.

    `metrics` and `params` are those of the runs; `stages` maps a stage's name to its metric keys,
    `pictures` a stage's name to its picture keys with their newest step. `objective` is the metric
    that makes a run good, with its direction.
    """

    metrics: list[str] = field(default_factory=list)
    params: list[str] = field(default_factory=list)
    stages: dict[str, list[str]] = field(default_factory=dict)
    pictures: dict[str, dict[str, int]] = field(default_factory=dict)
    objective: str = ""
    kind: str = "run"
    """run, stage, search, trial or rerun."""


def stage_view(stage: str) -> str:
    """The id of the view that compares one stage of all runs."""
    return f"lit-eve-stage-{stage}"


def update_views(
    client: MlflowClient,
    experiment_id: str,
    run_id: str,
    stages: Sequence[tuple[str, str, dict[str, int]]],
) -> None:
    """Write the views of an experiment for what its newest run has to show.

    An error is only reported. A view that somebody changed in the UI stays as it is.

    Args:
        client: of the store.
        experiment_id: where the views go.
        run_id: the run.
        stages: name, MLflow's run id and picture keys with their newest step of each stage.
    """
    try:
        contents = contents_of(client, run_id, stages)
        existing = client.get_experiment(experiment_id).tags
        wanted: dict[str, tuple[str, dict[str, Any]]] = {}
        if contents.kind != "search":  # its columns are its trials'
            wanted[RUNS_VIEW] = ("Runs and scores", runs_state(contents))
        if contents.kind == "trial":
            wanted[SEARCH_VIEW] = ("Search: settings and scores", search_state(contents))
        for stage in contents.stages:
            wanted[stage_view(stage)] = (f"Stage {stage}: curves", stage_state(contents, stage))
        for key, (name, state) in wanted.items():
            value = encode(name, state)
            before = existing.get(TAG + key)
            if before != value and (before is None or _ours(before)):
                client.set_experiment_tag(experiment_id, TAG + key, value)
    except Exception as error:  # an internal format of somebody else's: never worth a run
        _log.warning("the saved views were not written: %s", error)


def encode(name: str, state: dict[str, Any]) -> str:
    """A view as the UI stores it."""
    packed = base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()
    view = {"name": name, "createdAt": _WRITTEN, "updatedAt": _WRITTEN}
    return json.dumps(view | {"state": f"deflate;{packed}"})


def decode(value: str) -> dict[str, Any]:
    """The state inside a stored view."""
    packed = json.loads(value)["state"].removeprefix("deflate;")
    state: dict[str, Any] = json.loads(zlib.decompress(base64.b64decode(packed)))
    return state


def runs_state(contents: Contents) -> dict[str, Any]:
    """The list of runs with scores and parameters, stages folded below their run."""
    metrics = [key for key in contents.metrics if not key.startswith("system/")]
    columns = [f"metrics.`{key}`" for key in sorted(metrics)[:12]]
    columns += [f"params.`{key}`" for key in contents.params]
    return _state(columns=[*columns, f"tags.`{STATE_TAG}`"])


def stage_state(contents: Contents, stage: str) -> dict[str, Any]:
    """One stage of all runs side by side: pictures first, then curves group by group."""
    charts: list[dict[str, Any]] = []
    sections: list[dict[str, Any]] = []
    pictures = contents.pictures.get(stage, {})
    if pictures:
        sections.append(_section("pictures") | {"columns": 2, "cardHeight": 600})
        charts += [_picture(key, step) for key, step in sorted(pictures.items())]
    for group, keys in _grouped(contents.stages[stage]):
        sections.append(_section(group))
        charts += [_curve(key, group) for key in keys]
    direction, _, metric = contents.objective.partition(" ")
    if metric not in contents.stages[stage]:
        metric, direction = "", "maximize"
    return _state(
        columns=[],
        searchFilter=f"tags.`lit_eve.stage` = '{stage}'",
        # Sorted by its start, a stage would be folded below its run.
        orderByKey=f"metrics.`{metric}`" if metric else "tags.`mlflow.runName`",
        orderByAsc=direction == "minimize",
        compareRunCharts=charts[:MAX_CHARTS],
        compareRunSections=sections,
        isAccordionReordered=True,  # or else the UI sorts the sections by name
        runsHiddenMode="SHOWALL",
    )


def search_state(contents: Contents) -> dict[str, Any]:
    """The trials of a search: settings against the score, the best trial first."""
    direction, _, metric = contents.objective.partition(" ")
    parallel = _card("PARALLEL", metric, "settings") | {
        "selectedParams": contents.params,
        "selectedMetrics": [metric],
        "showAllRuns": True,
    }
    bars = _card("BAR", metric, "settings") | {"metricKey": metric, "runsCountToCompare": 100}
    return _state(
        columns=[f"metrics.`{metric}`", *(f"params.`{key}`" for key in contents.params)],
        searchFilter=f"tags.`{KIND_TAG}` = 'trial'",
        orderByKey=f"metrics.`{metric}`",
        orderByAsc=direction == "minimize",
        compareRunCharts=[parallel, bars, *(_scatter(key, metric) for key in contents.params)],
        compareRunSections=[_section("settings") | {"columns": 2, "cardHeight": 420}],
        isAccordionReordered=True,
        runsHiddenMode="SHOWALL",
    )


def contents_of(
    client: MlflowClient, run_id: str, stages: Iterable[tuple[str, str, dict[str, int]]]
) -> Contents:
    """What one run has to show; arguments as of `update_views`."""
    run = client.get_run(run_id)
    contents = Contents(
        metrics=sorted(run.data.metrics),
        params=sorted(run.data.params),
        objective=run.data.tags.get(OBJECTIVE_TAG, ""),
        kind=run.data.tags.get(KIND_TAG, "run"),
    )
    for name, stage_id, pictures in stages:
        contents.stages[name] = sorted(client.get_run(stage_id).data.metrics)
        contents.pictures[name] = pictures
    return contents


def _grouped(keys: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Keys by what stands before their last `/`: known groups first, then the others."""
    groups: dict[str, list[str]] = {}
    for key in sorted(keys):
        groups.setdefault(key.rpartition("/")[0] or "other", []).append(key)

    def place(group: str) -> tuple[int, str]:
        first = group.split("/")[0]
        return (_GROUPS.index(first) if first in _GROUPS else len(_GROUPS), group)

    return [(group, groups[group]) for group in sorted(groups, key=place)]


def _section(name: str) -> dict[str, Any]:
    return {
        "uuid": f"section-{name}",
        "name": name,
        "display": True,
        "isReordered": False,
        "deleted": False,
        "isGenerated": False,
    }


def _card(kind: str, key: str, group: str) -> dict[str, Any]:
    return {
        "uuid": f"{kind.lower()}-{key}",
        "type": kind,
        "runsCountToCompare": 10,
        "metricSectionId": f"section-{group}",
        "deleted": False,
        "isGenerated": False,
        "displayName": key.rpartition("/")[2],
    }


def _curve(key: str, group: str) -> dict[str, Any]:
    return _card("LINE", key, group) | {
        "metricKey": key,
        "selectedMetricKeys": [key],
        "lineSmoothness": 0,
        "xAxisScaleType": "linear",
        "scaleType": "linear",
        "range": {},
        "xAxisKey": "step",
        "selectedXAxisMetricKey": "",
        "yAxisKey": "metric",
        "yAxisExpressions": [],
        "ignoreOutliers": False,
        "useGlobalXaxisKey": True,
        "useGlobalLineSmoothing": True,
    }


def _scatter(param: str, metric: str) -> dict[str, Any]:
    return _card("SCATTER", param, "settings") | {
        "xaxis": {"key": param, "type": "PARAM"},
        "yaxis": {"key": metric, "type": "METRIC"},
        "runsCountToCompare": 100,
    }


def _picture(key: str, step: int) -> dict[str, Any]:
    return _card("IMAGE", key, "pictures") | {
        "imageKeys": [key],
        "step": step,
        "showRunParams": False,
    }


def _state(columns: list[str], **more: Any) -> dict[str, Any]:
    return {
        "searchFilter": "",
        "orderByKey": "attributes.start_time",
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": columns,
        "columnOrder": [],
        "columnWidths": {},
        "runsHiddenMode": "FIRST_10_RUNS",
        "viewMaximized": False,
        "runListHidden": False,
        "isAccordionReordered": False,
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": True,
        "groupBy": None,
        "groupsExpanded": {},
        "autoRefreshEnabled": True,
        "globalLineChartConfig": {
            "xAxisKey": "step",
            "lineSmoothness": 0,
            "selectedXAxisMetricKey": "",
        },
    } | more


def _ours(value: str) -> bool:
    try:
        return bool(json.loads(value)["updatedAt"] == _WRITTEN)
    except (ValueError, KeyError, TypeError):
        return False
