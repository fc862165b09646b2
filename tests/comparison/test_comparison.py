"""Runs held against each other: what differs, and tables of many."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from lit_eve.comparison.diff import compare
from lit_eve.comparison.reading import RecordedRun
from lit_eve.comparison.table import rows, written
from lit_eve.running.directory import RunDirectory


def recorded(
    root: Path, name: str, seed: int, right: float, rate: float = 1e-3, commit: str = "aaaa"
) -> RecordedRun:
    folder = root / name / f"{seed}-{rate}"
    (folder / "read").mkdir(parents=True)
    stage = {"for": "10 steps", "train": {"language_model": rate}}
    experiment = {"name": name, "seed": seed, "stages": {"read": stage}}
    (folder / "experiment.yaml").write_text(yaml.safe_dump(experiment))
    environment = {"git": {"commit": commit, "diff": ""}, "packages": {"torch": "2.13.0"}}
    (folder / "environment.json").write_text(json.dumps(environment))
    summary = {"state": "finished", "steps": 10, "scores": {"read": right, "all": right / 2}}
    (folder / "read" / "summary.json").write_text(json.dumps(summary))
    return RecordedRun(RunDirectory(folder))


def test_two_runs_differ_in_what_was_changed_and_in_nothing_else(tmp_path: Path) -> None:
    one = recorded(tmp_path, "eve", 0, 0.5)
    other = recorded(tmp_path, "eve", 0, 0.75, rate=2e-3, commit="bbbb")
    assert compare(one, other) == {
        "experiment": {"stages.read.train.language_model": (1e-3, 2e-3)},
        "code": {"commit": ("aaaa", "bbbb")},
        "data": {},
        "environment": {},
        "results": {"read.read": (0.5, 0.75), "read.all": (0.25, 0.375)},
    }


def test_seeds_become_mean_and_sample_deviation(tmp_path: Path) -> None:
    runs = [recorded(tmp_path, "eve", seed, right) for seed, right in enumerate((0.4, 0.5, 0.9))]
    runs.append(recorded(tmp_path, "fuyu", 0, 0.7))
    # (0.4, 0.5, 0.9): mean 0.6, deviation sqrt((0.04 + 0.01 + 0.09) / 2) = 0.2646.
    assert written(rows(runs, metrics=["read"]), "markdown").splitlines() == [
        "| experiment | seeds | read |",
        "| --- | ---: | ---: |",
        "| eve | 3 | 60.0 ± 26.5 |",
        "| fuyu | 1 | 70.0 |",
    ]
    lines = written(rows(runs, metrics=["read"]), "csv").splitlines()
    assert lines[0] == "experiment,seeds,read,read std"
    assert [round(float(word), 4) for word in lines[1].split(",")[2:]] == [0.6, 0.2646]
    assert lines[2] == "fuyu,1,0.7,"


def test_latex_escapes_what_it_would_read_as_commands(tmp_path: Path) -> None:
    text = written(rows([recorded(tmp_path, "eve_7b", 0, 0.5)]), "latex")
    assert r"eve\_7b & 1 & 50.0 & 25.0 \\" in text
    assert text.startswith(r"\begin{tabular}{lrrr}")


def test_runs_of_one_name_that_differ_get_rows_that_say_how(tmp_path: Path) -> None:
    runs = [recorded(tmp_path, "eve", 0, 0.5), recorded(tmp_path, "eve", 0, 0.6, rate=2e-3)]
    assert [row.label for row in rows(runs)] == [
        "eve (stages.read.train.language_model=0.001)",
        "eve (stages.read.train.language_model=0.002)",
    ]


def test_a_seed_counted_twice_is_refused(tmp_path: Path) -> None:
    runs = [recorded(tmp_path / "a", "eve", 0, 0.5), recorded(tmp_path / "b", "eve", 0, 0.5)]
    with pytest.raises(ValueError, match="seed 0 stands there more than once"):
        rows(runs)


def test_a_run_without_scores_and_an_unknown_score_are_named(tmp_path: Path) -> None:
    run = recorded(tmp_path, "eve", 0, 0.5)
    with pytest.raises(ValueError, match=r"no score 'raed'\. Scores there: read, all"):
        rows([run], metrics=["raed"])
    with pytest.raises(ValueError, match=r"no scores of stage 'align'.*lit-eve resume"):
        rows([run], stage="align")


def test_the_same_data_in_another_place_is_the_same_and_other_data_is_not(tmp_path: Path) -> None:
    one, moved, other = (recorded(tmp_path / name, "eve", 0, 0.5) for name in "abc")
    for run, digest, place in ((one, "1f", "here"), (moved, "1f", "there"), (other, "2e", "here")):
        data = {"scenes": {"digest": digest, "path": place}}
        (run.directory.path / "data.json").write_text(json.dumps(data))
    assert compare(one, moved)["data"] == {}
    assert compare(one, other)["data"] == {"scenes.digest": ("1f", "2e")}
