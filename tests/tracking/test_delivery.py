from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from lit_eve.tracking import media
from lit_eve.tracking.batches import RunDeletedError
from lit_eve.tracking.delivery import Delivery, recall
from lit_eve.tracking.shipper import SyncError, sync
from lit_eve.tracking.spool import Spool
from lit_eve.tracking.store import locate

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlflow import MlflowClient
    from mlflow.entities import Run

    Points = Callable[[str, str], list[tuple[int, float]]]

TEN = [(step, 1 / (step + 1)) for step in range(10)]


def runs(client: MlflowClient) -> dict[str, Run]:
    experiments = [found.experiment_id for found in client.search_experiments()]
    return {str(run.info.run_name): run for run in client.search_runs(experiments)}


def artifacts(client: MlflowClient, run: Run, folder: str = "") -> Iterator[str]:
    for entry in client.list_artifacts(run.info.run_id, folder or None):
        if entry.is_dir:
            yield from artifacts(client, run, entry.path)
        else:
            yield str(entry.path)


@pytest.fixture
def delivery(client: MlflowClient, uri: str, run_directory: Path) -> Delivery:
    return Delivery(client, locate(uri), run_directory)


def test_a_run_is_one_parent_and_its_stages_are_its_children(
    delivery: Delivery, client: MlflowClient
) -> None:
    delivery.ship()
    found = runs(client)
    assert set(found) == {"brisk-otter", "align", "learn"}
    parent = found["brisk-otter"]
    for stage in ("align", "learn"):
        assert found[stage].data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert client.get_experiment(parent.info.experiment_id).name == "digits"
    assert parent.data.params == {"seed": "0", "model.width": "128"}
    assert parent.data.tags["mlflow.note.content"] == "**98 %** of digits read."


def test_every_point_arrives_once_however_often_it_is_sent(
    delivery: Delivery, client: MlflowClient, uri: str, run_directory: Path, points: Points
) -> None:
    delivery.ship()
    for memory in run_directory.glob("*/tracking/shipped-*.json"):
        memory.unlink()  # the shipper died before it could remember
    again = Delivery(client, locate(uri), run_directory)
    again.ship()
    assert again.num_sent > 0
    assert points("align", "train/loss") == TEN
    assert points("learn", "train/loss") == TEN
    assert len(runs(client)) == 3


def test_a_second_sync_sends_nothing(run_directory: Path, uri: str) -> None:
    first = sync(run_directory, uri)
    second = sync(run_directory, uri)
    assert first.num_sent > 0
    assert (second.num_sent, second.num_refused, second.run_id) == (0, 0, first.run_id)


def test_what_is_recorded_later_goes_into_the_same_run(
    delivery: Delivery, client: MlflowClient, run_directory: Path, points: Points
) -> None:
    delivery.ship()
    resumed = Spool(run_directory / "learn" / "tracking")
    resumed.metrics({"train/loss": 0.05}, 10)
    assert delivery.ship() == 1
    assert points("learn", "train/loss") == [*TEN, (10, 0.05)]


def test_statuses_and_times_are_those_of_the_recording(
    client: MlflowClient, uri: str, tmp_path: Path
) -> None:
    run = tmp_path / "runs" / "digits" / "slow-heron"
    spool = Spool(run / "tracking")
    spool.status("RUNNING")
    delivery = Delivery(client, locate(uri), run)
    delivery.ship()
    assert runs(client)["slow-heron"].info.status == "RUNNING"
    spool.status("FAILED", state="killed", at=2_000_000_000.5)
    delivery.ship()
    found = runs(client)["slow-heron"]
    assert (found.info.status, found.info.end_time) == ("FAILED", 2_000_000_000_500)
    assert found.data.tags["lit_eve.state"] == "killed"
    spool.status("RUNNING")
    delivery.ship()
    assert runs(client)["slow-heron"].info.status == "RUNNING"


def test_a_changed_parameter_costs_nothing_but_itself(
    delivery: Delivery, client: MlflowClient, run_directory: Path, points: Points
) -> None:
    delivery.ship()
    resumed = Spool(run_directory / "tracking")
    resumed.params({"seed": 1})
    resumed.metrics({"val/read": 0.98}, 5)
    delivery.ship()
    found = runs(client)["brisk-otter"]
    assert found.data.params["seed"] == "0"
    assert found.data.tags["changed.seed"] == "1"
    assert points("brisk-otter", "val/read") == [(5, 0.98)]
    assert delivery.num_refused == 1


def test_an_emptied_store_is_filled_again(
    delivery: Delivery, client: MlflowClient, uri: str, run_directory: Path, points: Points
) -> None:
    memory = recall(run_directory / "tracking", locate(uri))
    assert memory.run_id == ""
    delivery.ship()
    for folder in ("tracking", "align/tracking", "learn/tracking"):
        path = next((run_directory / folder).glob("shipped-*.json"))
        path.write_text(json.dumps(json.loads(path.read_text()) | {"run_id": "f" * 32}))
    before = {run.info.run_id for run in runs(client).values()}
    for run_id in before:
        client.set_tag(run_id, "lit_eve.uid", "somebody else's")
        client.update_run(run_id, name=f"old {run_id}")
    Delivery(client, locate(uri), run_directory).ship()
    assert points("learn", "train/loss") == TEN


def test_a_run_deleted_in_the_ui_is_left_alone(
    delivery: Delivery, client: MlflowClient, uri: str, run_directory: Path
) -> None:
    delivery.ship()
    client.delete_run(runs(client)["learn"].info.run_id)
    Spool(run_directory / "learn" / "tracking").metrics({"train/loss": 0.1}, 20)
    with pytest.raises(RunDeletedError, match="Restore it in the UI and sync again"):
        sync(run_directory, uri)
    client.restore_run(recall(run_directory / "learn" / "tracking", locate(uri)).run_id)
    assert sync(run_directory, uri).num_sent == 1


def test_a_deleted_experiment_comes_back_with_its_next_run(
    delivery: Delivery, client: MlflowClient
) -> None:
    experiment = client.create_experiment("digits")
    client.delete_experiment(experiment)
    delivery.ship()
    assert client.get_experiment(experiment).lifecycle_stage == "active"


def test_a_picture_is_kept_once_with_its_step(
    delivery: Delivery, client: MlflowClient, uri: str, run_directory: Path
) -> None:
    spool = Spool(run_directory / "learn" / "tracking")
    for step in (20, 30):
        media.log_images(spool, "val/answers", step, [np.zeros((8, 8, 3))] * 4, ["a"] * 4)
    delivery.ship()
    for memory in run_directory.glob("*/tracking/shipped-*.json"):
        memory.unlink()
    Delivery(client, locate(uri), run_directory).ship()
    run = runs(client)["learn"]
    names = sorted(artifacts(client, run, "images"))
    assert len(names) == 4
    assert [name.split("+")[2] for name in names] == ["20", "20", "30", "30"]
    assert {name.split("/")[1].split("+")[0] for name in names} == {"val~answers"}
    assert run.data.tags["mlflow.loggedImages"] == "true"


def test_a_table_has_its_pictures_and_says_its_step(
    delivery: Delivery, client: MlflowClient, run_directory: Path, tmp_path: Path
) -> None:
    spool = Spool(run_directory / "learn" / "tracking")
    for step, given in ((20, "4"), (30, "7")):
        row = {"image": np.zeros((8, 8, 3)), "expected": "7", "given": given}
        media.log_table(spool, "answers", step, [row, row])
    delivery.ship()
    run = runs(client)["learn"]
    names = set(artifacts(client, run))
    newest = client.download_artifacts(run.info.run_id, "answers.json", str(tmp_path))
    table = json.loads(Path(newest).read_text())
    assert table["columns"] == ["image", "expected", "given", "step"]
    assert [row[1:] for row in table["data"]] == [["7", "7", 30]] * 2
    cell = table["data"][1][0]
    assert cell["type"] == "image"
    assert {cell["filepath"], cell["compressed_filepath"]} <= names
    assert {"answers/step-000000020.json", "answers/step-000000030.json"} <= names
    listed = [entry["path"] for entry in json.loads(run.data.tags["mlflow.loggedArtifacts"])]
    assert listed == [
        "answers/step-000000020.json", "answers.json", "answers/step-000000030.json"
    ]  # fmt: skip


def test_files_and_texts_lie_where_they_were_sent(
    delivery: Delivery, client: MlflowClient, run_directory: Path
) -> None:
    spool = Spool(run_directory / "tracking")
    spool.text("config/resolved.yaml", "name: digits\n")
    (run_directory / "report").mkdir()
    (run_directory / "report" / "scores.csv").write_text("read,0.98\n")
    spool.artifact(run_directory / "report", folder="report")
    spool.artifact(run_directory / "missing.txt")
    delivery.ship()
    names = set(artifacts(client, runs(client)["brisk-otter"]))
    assert names == {"config/resolved.yaml", "report/scores.csv"}
    assert delivery.num_refused == 1


def test_the_data_of_a_run_is_its_input(
    delivery: Delivery, client: MlflowClient, run_directory: Path
) -> None:
    Spool(run_directory / "tracking").dataset("scenes", "0123abcd", "datasets/scenes")
    delivery.ship()
    inputs = runs(client)["brisk-otter"].inputs
    assert inputs is not None
    [given] = inputs.dataset_inputs
    assert (given.dataset.name, given.dataset.digest) == ("scenes", "0123abcd")


def test_keys_that_mlflow_refuses_are_rewritten(
    delivery: Delivery, client: MlflowClient, run_directory: Path, points: Points
) -> None:
    spool = Spool(run_directory / "learn" / "tracking")
    spool.metrics({"val/a=b?": 1.0, "v" * 300: 2.0, "val/text": "no number"}, 0)  # type: ignore[dict-item]
    delivery.ship()
    assert points("learn", "val/a_b_") == [(0, 1.0)]
    assert points("learn", "v" * 250) == [(0, 2.0)]


def test_what_was_measured_of_the_machine_goes_to_the_run_itself(
    delivery: Delivery, client: MlflowClient, run_directory: Path, points: Points
) -> None:
    Spool(run_directory / "tracking" / "system").metrics({"system/process_cpu_percent": 99.0}, 3)
    delivery.ship()
    assert len(runs(client)) == 3
    assert points("brisk-otter", "system/process_cpu_percent") == [(3, 99.0)]


def test_many_metrics_go_in_few_requests(
    client: MlflowClient, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, points: Points
) -> None:
    run = tmp_path / "runs" / "digits" / "long-run"
    Spool(run / "tracking").status("RUNNING")
    spool = Spool(run / "learn" / "tracking")
    for step in range(250):
        spool.metrics({f"train/m{number}": float(step) for number in range(10)}, step)
    sizes: list[int] = []
    real = client.log_batch

    def counted(run_id: str, metrics: Any = (), **more: Any) -> Any:
        sizes.append(len(metrics))
        return real(run_id, metrics, **more)

    monkeypatch.setattr(client, "log_batch", counted)
    Delivery(client, locate(uri), run).ship()
    assert [size for size in sizes if size] == [1000, 1000, 500]
    assert len(points("learn", "train/m9")) == 250


def test_an_unreachable_store_loses_nothing_and_says_what_to_do(
    run_directory: Path, uri: str, points: Points
) -> None:
    with pytest.raises(SyncError, match="Sync again when the store is reachable") as raised:
        sync(run_directory, "http://me:hunter2@127.0.0.1:9")
    assert "hunter2" not in str(raised.value)
    sync(run_directory, uri)
    assert points("learn", "train/loss") == TEN


def test_an_interrupted_delivery_goes_on_where_it_stopped(
    client: MlflowClient,
    uri: str,
    run_directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    points: Points,
) -> None:
    real = client.log_batch
    calls = 0

    def sometimes(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls % 3:
            raise ConnectionError("the server was restarted")
        return real(*args, **kwargs)

    monkeypatch.setattr(client, "log_batch", sometimes)
    delivery = Delivery(client, locate(uri), run_directory)
    failures = 0
    for _ in range(100):
        try:
            delivery.ship()
        except ConnectionError:
            failures += 1
    assert failures > 3
    assert points("align", "train/loss") == TEN
    assert points("learn", "train/loss") == TEN
