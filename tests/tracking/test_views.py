from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from lit_eve.tracking import media, views
from lit_eve.tracking.colours import run_colour, stage_colour
from lit_eve.tracking.delivery import COLOUR_TAG, Delivery
from lit_eve.tracking.runs import objective
from lit_eve.tracking.spool import Spool
from lit_eve.tracking.store import locate
from lit_eve.tracking.views import (
    RUNS_VIEW,
    SEARCH_VIEW,
    TAG,
    Contents,
    decode,
    encode,
    search_state,
    stage_state,
    stage_view,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient


def view(client: MlflowClient, key: str) -> dict[str, object]:
    found = client.get_experiment_by_name("digits")
    assert found is not None
    return decode(found.tags[TAG + key])


def test_a_stage_shows_pictures_first_then_groups_in_the_order_of_interest() -> None:
    keys = ["perf/rate", "optim/lr", "train/loss", "val/loss", "val/read/f1", "codebook/used", "x"]
    contents = Contents(stages={"learn": keys}, pictures={"learn": {"val/answers": 400}})
    state = stage_state(contents, "learn")
    sections = [section["name"] for section in state["compareRunSections"]]
    assert sections == [
        "pictures", "val", "val/read", "train", "codebook", "optim", "perf", "other"
    ]  # fmt: skip
    picture = state["compareRunCharts"][0]
    assert (picture["type"], picture["imageKeys"], picture["step"]) == (
        "IMAGE",
        ["val/answers"],
        400,
    )
    assert picture["showRunParams"] is False


def test_every_chart_lies_in_a_section_that_is_there() -> None:
    contents = Contents(stages={"learn": ["val/a", "b"]}, pictures={"learn": {"val/c": 0}})
    state = stage_state(contents, "learn")
    sections = {section["uuid"] for section in state["compareRunSections"]}
    assert {chart["metricSectionId"] for chart in state["compareRunCharts"]} == sections


@pytest.mark.parametrize(
    ("wanted", "key", "ascending"),
    [
        ("maximize val/read", "metrics.`val/read`", False),
        ("minimize val/loss", "metrics.`val/loss`", True),
        ("maximize val/unknown", "tags.`mlflow.runName`", False),
        ("", "tags.`mlflow.runName`", False),
    ],
)
def test_stages_are_sorted_by_what_makes_a_run_good(wanted: str, key: str, ascending: bool) -> None:
    contents = Contents(stages={"learn": ["val/read", "val/loss"]}, objective=wanted)
    state = stage_state(contents, "learn")
    assert (state["orderByKey"], state["orderByAsc"]) == (key, ascending)


@pytest.mark.parametrize("wanted", ["maximize val/read", ""])
def test_mlflow_accepts_the_order_and_the_filter_of_a_view(
    client: MlflowClient, wanted: str
) -> None:
    experiment = client.create_experiment("digits")
    stage = client.create_run(experiment, tags={"lit_eve.stage": "learn"})
    client.log_metric(stage.info.run_id, "val/read", 0.9)
    state = stage_state(Contents(stages={"learn": ["val/read"]}, objective=wanted), "learn")
    found = client.search_runs(
        [experiment], state["searchFilter"], order_by=[f"{state['orderByKey']} DESC"]
    )
    assert [run.info.run_id for run in found] == [stage.info.run_id]


def test_a_view_survives_its_packing() -> None:
    state = stage_state(Contents(stages={"learn": ["val/loss"]}), "learn")
    assert decode(encode("curves", state)) == state


def test_views_are_written_with_a_run(
    client: MlflowClient, uri: str, run_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = Spool(run_directory / "tracking")
    own.tags(objective("train/loss", "minimize"))
    own.metrics({"test/read": 0.98}, 9)
    media.log_images(Spool(run_directory / "learn" / "tracking"), "val/x", 7, [np.zeros((8, 8))])
    Delivery(client, locate(uri), run_directory).ship()
    columns = view(client, RUNS_VIEW)["selectedColumns"]
    assert columns == [
        "metrics.`test/read`",
        "params.`model.width`",
        "params.`seed`",
        "tags.`lit_eve.state`",
    ]
    learn = view(client, stage_view("learn"))
    assert learn["orderByKey"] == "metrics.`train/loss`"
    assert '"val/x"' in str(learn["compareRunCharts"]).replace("'", '"')


def test_a_view_that_somebody_changed_stays(
    client: MlflowClient, uri: str, run_directory: Path
) -> None:
    Delivery(client, locate(uri), run_directory).ship()
    experiment = client.get_experiment_by_name("digits")
    assert experiment is not None
    theirs = encode("mine", {"searchFilter": "x"}).replace(str(views._WRITTEN), "1800000000000")
    client.set_experiment_tag(experiment.experiment_id, TAG + RUNS_VIEW, theirs)
    Spool(run_directory / "tracking").status("RUNNING")
    Delivery(client, locate(uri), run_directory).ship()
    assert view(client, RUNS_VIEW) == {"searchFilter": "x"}


def test_a_view_that_cannot_be_written_costs_the_run_nothing(
    client: MlflowClient,
    uri: str,
    run_directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(name: str, state: object) -> str:
        raise KeyError("a new format")

    monkeypatch.setattr(views, "encode", broken)
    delivery = Delivery(client, locate(uri), run_directory)
    assert delivery.ship() > 0
    assert delivery.ship() == 0
    assert "the saved views were not written" in caplog.text


def test_neighbouring_runs_have_colours_far_apart() -> None:
    # Red, green and blue parts differ by at least 60 of 255 together, for any two of eight runs.
    parts = [np.array([int(run_colour(n)[at : at + 2], 16) for at in (1, 3, 5)]) for n in range(8)]
    distances = [abs(a - b).sum() for i, a in enumerate(parts) for b in parts[:i]]
    assert min(distances) >= 60


def test_stages_keep_the_hue_of_their_run() -> None:
    colours = {stage_colour(run_colour(1), index) for index in range(3)}
    assert len(colours) == 3
    assert stage_colour(run_colour(1), 0) == run_colour(1)
    assert stage_colour(run_colour(1), 3) == run_colour(1)


def test_runs_of_an_experiment_get_colours_in_turn(
    client: MlflowClient, uri: str, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        run = tmp_path / "runs" / "digits" / name
        Spool(run / "tracking").status("RUNNING")
        Delivery(client, locate(uri), run).ship()
    experiments = [found.experiment_id for found in client.search_experiments()]
    colours = {run.data.tags[COLOUR_TAG] for run in client.search_runs(experiments)}
    assert colours == {run_colour(0), run_colour(1)}


def test_a_search_shows_settings_against_the_score_the_best_first() -> None:
    contents = Contents(
        params=["a.rate", "b.codes"], objective="minimize val/loss", kind="trial", metrics=["x"]
    )
    state = search_state(contents)
    parallel, bars, *scatters = state["compareRunCharts"]
    assert (parallel["selectedParams"], parallel["selectedMetrics"]) == (
        ["a.rate", "b.codes"],
        ["val/loss"],
    )
    assert bars["metricKey"] == "val/loss"
    assert [chart["xaxis"]["key"] for chart in scatters] == ["a.rate", "b.codes"]
    assert (state["orderByKey"], state["orderByAsc"]) == ("metrics.`val/loss`", True)
    assert state["searchFilter"] == "tags.`lit_eve.kind` = 'trial'"


def test_a_trial_writes_the_view_of_its_search_and_the_search_none(
    client: MlflowClient, uri: str, tmp_path: Path
) -> None:
    for name, kind in (("search", "search"), ("trial-000", "trial")):
        tags = objective("val/loss", "minimize") | {"lit_eve.kind": kind}
        spool = Spool(tmp_path / "digits" / name / "tracking", tags=tags)
        spool.params({"rate": 1} if kind == "trial" else {})
        spool.status("FINISHED")
        Delivery(client, locate(uri), tmp_path / "digits" / name).ship()
        found = client.get_experiment_by_name("digits")
        assert found is not None
        written = {key.removeprefix(TAG) for key in found.tags if key.startswith(TAG)}
        assert written == (set() if kind == "search" else {RUNS_VIEW, SEARCH_VIEW})
