"""What a user's machine or file can lack: every run below stops before anything is written.

Mistakes within the file are found in tests/schema; a disk that fills, in
checkpoints/test_callback.py and tracking/test_spool.py; a tracking server that is away, in
tracking/test_shipper.py; an interrupted preparation, in data/preparing/test_writing.py.
"""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from lit_eve.running import directory as run_directory
from lit_eve.running import run
from lit_eve.running.directory import RunDirectory
from lit_eve.running.places import check_places
from lit_eve.schema import load
from tests.files import QUICKSTART, UNTRACKED

LAPTOP = QUICKSTART.parent / "eve" / "laptop.yaml"
DECODER = "model.language_model={type: pretrained, from: nowhere/decoder}"


@pytest.fixture(autouse=True)
def _own_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(run_directory.RUN_VARIABLE, raising=False)


def started(file: Path, changes: list[str], folder: Path, tiny: bool = False) -> RunDirectory:
    """A run below `folder`."""
    return run.start(
        file,
        [UNTRACKED, *changes],
        tiny=tiny,
        runs=folder / "runs",
        data=folder / "data",
        first=None,
        console=Console(file=io.StringIO()),
    )


@pytest.mark.parametrize(
    ("file", "change", "key", "advice"),
    [
        (LAPTOP, DECODER, "model.language_model.from", "Train it first if another experiment"),
        (LAPTOP, DECODER, "model.teacher.from", "or write hf:foundation/teacher for a model of"),
        (
            QUICKSTART,
            "model.text={type: saved, from: nowhere/text}",
            "model.text.from",
            "Give `text/` of a run, or a folder that `lit-eve export` wrote.",
        ),
        (
            QUICKSTART,
            "datasets.mine={type: litdata, path: nowhere/data}",
            "datasets.mine.path",
            "Training reads only datasets that were finished and verified.",
        ),
        (
            QUICKSTART,
            "stages.last={do: load, weights: nowhere/model.safetensors}",
            "stages.last.weights",
            "Give `model.safetensors` of a stage",
        ),
    ],
)
def test_a_place_that_is_not_there_stops_a_run_before_it_is_one(
    file: Path, change: str, key: str, advice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where the relative addresses of the files lead nowhere
    with pytest.raises(ValueError, match=f"{key}: ") as raised:
        started(file, [change], tmp_path)
    assert advice in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_all_missing_places_are_told_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="nowhere/decoder") as raised:
        started(LAPTOP, [DECODER], tmp_path)
    assert [line.split(":")[0] for line in str(raised.value).splitlines()] == [
        "model.language_model.from",
        "model.teacher.from",
    ]


def test_a_finished_stage_no_longer_needs_the_file_it_loaded() -> None:
    experiment = load(QUICKSTART, ["stages.last={do: load, weights: nowhere/model.safetensors}"])
    with pytest.raises(ValueError, match="last"):
        check_places(experiment, finished=["glimpse", "read"])
    check_places(experiment, finished=["glimpse", "read", "last"])


def test_a_folder_that_cannot_be_written_stops_a_run_before_data_is_prepared(
    tmp_path: Path,
) -> None:
    (tmp_path / "runs").write_text("a file where the folder of all runs should be")
    with pytest.raises(ValueError, match="Choose a writable place with --runs DIR"):
        started(QUICKSTART, [], tmp_path)
    assert not (tmp_path / "data").exists()


def test_a_chunk_that_was_cut_short_stops_a_run_before_it_trains(
    tiny_run: Path, datasets: Path, tmp_path: Path
) -> None:
    shutil.copytree(datasets, tmp_path / "data")  # what the tiny run was trained on
    chunks = sorted((tmp_path / "data").glob("scenes-*/train/*.bin"))
    for chunk in chunks:
        chunk.write_bytes(chunk.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"\.bin has \d+ bytes"):
        started(QUICKSTART, [], tmp_path, tiny=True)
    assert RunDirectory(tiny_run).finished("read")
