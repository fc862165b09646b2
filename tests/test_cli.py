"""The command line: quick, and plain about what went wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.files import QUICKSTART

ROOT = QUICKSTART.parent.parent


def run(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join(str(ROOT / part) for part in ("", "data", "callbacks"))
    return subprocess.run(
        [sys.executable, "-m", "lit_eve", *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": paths, "COLUMNS": "120"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_help_imports_nothing_heavy() -> None:
    code = "import sys, lit_eve.cli; print(sorted(sys.modules))"
    paths = os.pathsep.join(str(ROOT / part) for part in ("", "data", "callbacks"))
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=True,
    )
    for heavy in ("torch", "lightning", "mlflow", "pydantic", "omegaconf", "numpy", "rich.console"):
        assert f"'{heavy}'" not in done.stdout, heavy


def test_help_names_every_verb() -> None:
    said = run("--help").stdout
    verbs = (
        "new",
        "ls",
        "check",
        "plan",
        "run",
        "resume",
        "evaluate",
        "generate",
        "ui",
        "sync",
        "schema",
        "runs",
    )
    assert all(verb in said for verb in verbs)


def test_help_says_every_verb_in_full() -> None:
    assert "..." not in run("--help").stdout.partition("Commands")[2]


def test_five_mistakes_are_reported_together(tmp_path: Path) -> None:
    text = QUICKSTART.read_text()
    for right, wrong in (
        ("heads: 4,", "heads: 5,"),
        ("type: eve_v2", "type: eve_v3"),
        ("sides: [32, 48]", "sides: [30, 48]"),
        ("for: 24k samples", "for: 24k sample_s"),
        ("keep: 2", "kep: 2"),
    ):
        assert right in text
        text = text.replace(right, wrong)
    (tmp_path / "wrong.yaml").write_text(text)
    done = run("check", str(tmp_path / "wrong.yaml"))
    assert done.returncode == 2
    assert "5 mistakes" in done.stdout
    for place in ("heads", "eve_v2", "sides", "samples", "keep"):
        assert place in done.stdout
    assert done.stdout.count("wrong.yaml:") >= 5


def test_a_run_that_is_not_there_is_an_error_in_words(tmp_path: Path) -> None:
    done = run("resume", "nothing", "--runs", str(tmp_path))
    assert done.returncode == 1
    assert "no run 'nothing' under" in done.stderr
    assert "Traceback" not in done.stderr


def test_changes_to_a_run_that_goes_on_are_refused(tiny_run: Path) -> None:
    done = run("run", str(tiny_run), "seed=1")
    assert done.returncode == 1
    assert "goes on with other hardware" in done.stderr


@pytest.mark.parametrize(
    ("file", "gflop"),
    [("eve/eve_7b_shape.yaml", "42.5 GFLOP"), ("quickstart.yaml", "MFLOP")],
)
def test_plan_counts_the_vision_path(file: str, gflop: str) -> None:
    done = run("plan", str(QUICKSTART.parent / file))
    assert done.returncode == 0, done.stderr
    assert gflop in done.stdout


def test_the_schema_for_editors_is_the_one_of_this_version(tmp_path: Path) -> None:
    run("schema", "--to", str(tmp_path / "schema.json"))
    written = (tmp_path / "schema.json").read_text()
    assert written == (QUICKSTART.parent / "schema.json").read_text(), "run `make schema`"


@pytest.mark.parametrize(("name", "shown"), [("SearchError", False), ("KeyLostError", True)])
def test_an_error_of_the_surroundings_is_told_without_a_traceback(
    name: str, shown: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    from lit_eve.cli import _explain

    try:
        raise type(name, (RuntimeError,), {})("worker 1 ended: mend the file")
    except RuntimeError as error:
        code = _explain(error)
    assert code == 1
    told = capsys.readouterr().err
    assert "error worker 1 ended: mend the file" in told
    assert ("Traceback" in told) == shown
