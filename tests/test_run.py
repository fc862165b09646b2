"""A whole run: what it leaves behind, how it goes on after a kill, what stops it early."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from lit_eve.evaluation.evaluate import evaluate_run
from lit_eve.running import directory as run_directory
from lit_eve.running import run
from lit_eve.running.describing import parameters
from lit_eve.running.directory import RunDirectory
from lit_eve.schema import load
from lit_eve.tracking.spool import EVENTS_FILE, read_events
from tests.files import QUICKSTART, UNTRACKED

CHANGES = [UNTRACKED, "stages.glimpse.for=24 steps", "checkpoint.every=3", "evaluate.every=10"]


def events(folder: Path, kind: str) -> list[Any]:
    found = read_events(folder / "tracking" / EVENTS_FILE)
    return [event["v"] for event, _ in found if event["k"] == kind]


def silent() -> Console:
    return Console(file=io.StringIO())


@pytest.fixture(autouse=True)
def _own_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(run_directory.RUN_VARIABLE, raising=False)


def test_a_run_leaves_the_experiment_the_plan_and_a_summary_of_every_stage(tiny_run: Path) -> None:
    directory = RunDirectory(tiny_run)
    experiment = load(directory.experiment_file)
    plan = json.loads((tiny_run / "plan.json").read_text())
    environment = json.loads((tiny_run / "environment.json").read_text())
    assert torch.__version__.startswith(environment["packages"]["torch"])
    assert list(plan) == list(experiment.stages)
    for name in experiment.stages:
        summary = directory.summary(name)
        assert summary is not None
        assert summary["state"] == "finished"
        assert summary["steps"] == plan[name]["steps"]
        assert {"read", "all"} <= set(summary["scores"])
        assert directory.weights(name).is_file()


def test_a_run_says_which_data_it_read(tiny_run: Path) -> None:
    data = json.loads((tiny_run / "data.json").read_text())
    assert {name: len(facts["digest"]) for name, facts in data.items()} == {
        "glimpses": 64,
        "scenes": 64,
    }
    for folder, names in (("", ["glimpses", "scenes"]), ("glimpse", ["glimpses"])):
        recorded = events(tiny_run / folder, "dataset")
        assert [dataset["name"] for dataset in recorded] == names
        assert recorded[0]["digest"] == data["glimpses"]["digest"][:36]
        assert recorded[0]["samples"] == {"train": 64, "val": 16, "test": 16}


def test_a_run_is_described_with_its_verdict_first(tiny_run: Path) -> None:
    running, finished = events(tiny_run, "note")
    assert running.startswith("**running**")
    assert finished.startswith("**finished: all ")
    for part in ("no vision encoder read handwriting", "| glimpse | patch_embedding", "| read |"):
        assert part in finished
    assert f"`lit-eve evaluate {tiny_run.name}`" in finished


def test_a_run_records_the_few_values_that_matter(tiny_run: Path) -> None:
    [recorded] = events(tiny_run, "params")
    assert recorded == {
        "seed": "0",
        "parameters": "138 k",
        "stages.read.for": "6 steps",
        "stages.read.batch": "8",
        "stages.read.train.patch_embedding": "0.003",
    }


def test_what_the_command_line_changed_is_a_parameter_unless_it_changes_no_number() -> None:
    changes = ["stages.read.batch=4", "hardware.threads=1", "seed=7", "model.token=hunter2"]
    experiment = load(QUICKSTART, [change for change in changes if "token" not in change])
    assert list(parameters(experiment, changes, 1_000).items())[:4] == [
        ("stages.read.batch", "4"),
        ("seed", "7"),
        ("model.token", "***"),
        ("parameters", "1 k"),
    ]


def test_the_second_stage_starts_from_the_first_ones_weights(
    tiny_run: Path, datasets: Path
) -> None:
    from lit_eve.inference.opening import open_run

    first = load_file(RunDirectory(tiny_run).weights("glimpse"))
    _, name, model = open_run(RunDirectory(tiny_run), "glimpse", datasets, silent())
    assert name == "glimpse"
    state = model.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in first.items())


def test_a_finished_run_is_not_trained_again(tiny_run: Path, datasets: Path) -> None:
    before = RunDirectory(tiny_run).weights("read").stat().st_mtime_ns
    run.resume(RunDirectory(tiny_run), datasets, None, silent())
    assert RunDirectory(tiny_run).weights("read").stat().st_mtime_ns == before


def _command(runs: Path, data: Path, *arguments: str) -> subprocess.Popen[bytes]:
    root = QUICKSTART.parent.parent
    paths = os.pathsep.join(str(root / part) for part in ("", "data", "callbacks"))
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    environment.pop(run_directory.RUN_VARIABLE, None)
    return subprocess.Popen(
        [sys.executable, "-m", "lit_eve", *arguments, "--runs", str(runs), "--data", str(data)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _wait_for(pattern: str, root: Path, process: subprocess.Popen[bytes]) -> Path:
    for _ in range(1200):
        found = sorted(root.glob(pattern))
        if found or process.poll() is not None:
            break
        time.sleep(0.05)
    assert found, f"the process ended with {process.returncode} before it wrote {pattern}"
    return found[0]


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_stopped_run_ends_with_the_weights_of_one_that_never_stopped(
    how: signal.Signals, tmp_path: Path, datasets: Path
) -> None:
    straight = run.start(
        QUICKSTART,
        CHANGES,
        tiny=True,
        runs=tmp_path / "straight",
        data=datasets,
        first=None,
        console=silent(),
    )
    runs = tmp_path / "stopped"
    changes = [*CHANGES, "--tiny"]
    process = _command(runs, datasets, "run", str(QUICKSTART), *changes)
    checkpoint = _wait_for("*/*/glimpse/checkpoints/*.ckpt.json", runs, process)
    process.send_signal(how)
    process.wait(timeout=60)
    assert process.returncode == (-how if how == signal.SIGKILL else 143)
    stopped = RunDirectory(checkpoint.parent.parent.parent)
    run.resume(stopped, datasets, None, silent())
    for name in load(stopped.experiment_file).stages:
        expected, found = load_file(straight.weights(name)), load_file(stopped.weights(name))
        assert all(torch.equal(expected[key], found[key]) for key in expected), name


def test_evaluation_is_kept_in_the_run(tiny_run: Path, datasets: Path) -> None:
    result = evaluate_run(RunDirectory(tiny_run), "glimpse", 3, datasets, silent())
    kept = json.loads((tiny_run / "glimpse" / "evaluation.json").read_text())
    assert kept == {"questions": 3, "scores": result}


def test_an_unknown_stage_is_named_before_work_starts(tmp_path: Path, datasets: Path) -> None:
    with pytest.raises(ValueError, match=r"no stage 'rad'\. Stages: glimpse, read"):
        run.start(
            QUICKSTART,
            [UNTRACKED],
            tiny=True,
            runs=tmp_path,
            data=datasets,
            first="rad",
            console=silent(),
        )


def test_starting_at_a_stage_needs_the_weights_of_the_one_before(
    tmp_path: Path, datasets: Path
) -> None:
    with pytest.raises(ValueError, match=r"starts from the weights of 'glimpse'.* resume RUN"):
        run.start(
            QUICKSTART,
            [UNTRACKED],
            tiny=True,
            runs=tmp_path,
            data=datasets,
            first="read",
            console=silent(),
        )


def test_a_run_folder_that_cannot_be_written_stops_the_run(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"cannot write the run folder .*--runs DIR"):
        run_directory.create(tmp_path / "file", "quickstart")


def test_a_run_is_found_by_experiment_by_id_and_by_its_beginning(tmp_path: Path) -> None:
    for name in ("20260101-000000-aaaa", "20260102-000000-bbbb"):
        (tmp_path / "demo" / name).mkdir(parents=True)
        (tmp_path / "demo" / name / run_directory.EXPERIMENT_FILE).touch()
    assert run_directory.find("demo", tmp_path).id == "20260102-000000-bbbb"
    assert run_directory.find("20260101", tmp_path).id == "20260101-000000-aaaa"
    assert (
        run_directory.find(str(tmp_path / "demo/20260101-000000-aaaa"), tmp_path).id[-4:] == "aaaa"
    )
    assert run_directory.find("demo/20260101", tmp_path).id == "20260101-000000-aaaa"
    with pytest.raises(ValueError, match="no run 'other/20260101'"):
        run_directory.find("other/20260101", tmp_path)
    with pytest.raises(ValueError, match="'2026' fits 2 runs"):
        run_directory.find("2026", tmp_path)
    with pytest.raises(ValueError, match=r"no run 'dmo'.*Newest runs: .*demo/20260102"):
        run_directory.find("dmo", tmp_path)
