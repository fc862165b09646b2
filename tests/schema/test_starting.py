"""What there is to name, and a file of one's own to start from."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from lit_eve.schema import load
from lit_eve.schema.catalogue import FAMILIES, experiments, types
from lit_eve.schema.report import check
from lit_eve.schema.starting import EXAMPLE, new_file


@pytest.mark.parametrize("family", FAMILIES)
def test_every_type_is_listed_with_what_it_is(family: str) -> None:
    entries = types(family)
    assert entries
    assert all(entry.about.endswith(".") for entry in entries)
    assert len({entry.name for entry in entries}) == len(entries)


def test_the_families_hold_what_the_schema_holds() -> None:
    assert {entry.name for entry in types("connectors")} >= {"eve", "eve_v2", "linear"}
    assert {"gumbel", "vq", "fsq", "lfq", "residual"} <= {e.name for e in types("quantizers")}
    assert {entry.name for entry in types("models")} >= {"encoder_free", "tokenizer"}


def test_listing_imports_no_torch() -> None:
    code = "import sys, lit_eve.schema.catalogue; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_experiments_are_listed_with_their_questions_broken_ones_too(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text("question: Why?\n")
    (tmp_path / "two.yaml").write_text("{")
    assert [entry.about for entry in experiments(tmp_path)] == [
        "Why?",
        "cannot be read; `lit-eve check` says why",
    ]


def test_a_new_file_is_right_and_explains_every_block(tmp_path: Path) -> None:
    (tmp_path / "schema.json").write_text("{}")
    file = new_file("mine", tmp_path / "studies")
    report = check(file)
    assert report.ok, report.text()
    assert load(file).name == "mine"
    lines = file.read_text().splitlines()
    assert lines[0] == "# yaml-language-server: $schema=../schema.json"
    blocks = {line.partition(":")[0] for line in lines if line[:1].isalpha()}
    assert blocks == set(yaml.safe_load(EXAMPLE.read_text()))
    assert sum(" # " in line for line in lines) >= 10


def test_a_new_file_may_extend_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    base = new_file("base", Path("experiments"))
    file = new_file("mine", Path("experiments/studies"), base)
    assert load(file).stages == load(base).stages
    assert load(file).name == "mine"


@pytest.mark.parametrize(
    ("name", "like", "advice"),
    [
        ("a/b", None, "Use letters"),
        ("taken", None, "Choose another name"),
        ("mine", Path("nowhere.yaml"), "lit-eve ls experiments"),
    ],
)
def test_nothing_is_overwritten_or_guessed(
    name: str, like: Path | None, advice: str, tmp_path: Path
) -> None:
    (tmp_path / "taken.yaml").write_text("kept")
    with pytest.raises(ValueError, match=advice):
        new_file(name, tmp_path, like)
    assert (tmp_path / "taken.yaml").read_text() == "kept"
    assert not (tmp_path / "mine.yaml").exists()
