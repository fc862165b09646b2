"""Every shipped experiment is right, and runs when it is shrunk."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from lit_eve.running import run
from lit_eve.running.directory import RUN_VARIABLE
from lit_eve.schema import load
from lit_eve.schema.report import check
from tests.files import UNTRACKED

FOLDER = Path(__file__).parent.parent / "experiments"
TASKS = FOLDER / "tasks"
FILES = sorted(file for file in FOLDER.rglob("*.yaml") if file.parent != TASKS)
NAMES = [str(file.relative_to(FOLDER)) for file in FILES]


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_file_is_right(file: Path) -> None:
    report = check(file)
    assert report.ok, report.text()


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_file_names_its_question_and_the_schema_for_editors(file: Path) -> None:
    first, *rest = file.read_text().splitlines()
    depth = len(file.relative_to(FOLDER).parts) - 1
    assert first == f"# yaml-language-server: $schema={'../' * depth}schema.json"
    assert any(line.startswith("question: ") for line in rest)


@pytest.mark.slow
@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_file_runs_when_shrunk(
    file: Path, tmp_path: Path, datasets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(RUN_VARIABLE, "")
    monkeypatch.delenv(RUN_VARIABLE)  # what the run before left for its own ranks
    if load(file).search is not None:
        pytest.skip("a search is started by `lit-eve search`, which no test runs to its end")
    said = io.StringIO()
    directory = run.start(
        file,
        [UNTRACKED],
        tiny=True,
        runs=tmp_path / "runs",
        data=datasets,
        first=None,
        console=Console(file=said, width=120),
    )
    stages = load(directory.experiment_file).stages
    assert all(directory.finished(name) for name in stages), said.getvalue()
