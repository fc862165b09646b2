from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lit_eve.schema.report import check

HEAVY = ("torch", "lightning", "transformers", "mlflow", "litdata", "numpy", "optuna", "rich")

CODE = """
import sys
from lit_eve.schema.report import check
report = check(sys.argv[1], tiny=True)
assert report.ok, report.text()
print(report.text())
print([name for name in {heavy} if name in sys.modules])
"""


def test_a_check_imports_nothing_heavy_and_is_quick(quickstart: Path) -> None:
    words = [sys.executable, "-c", CODE.format(heavy=HEAVY), str(quickstart)]
    before = os.times().children_user
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
    # Measured: 0.4 s of processor time, pydantic half of it.
    assert os.times().children_user - before < 1.5


def test_a_right_experiment_is_summed_up(quickstart: Path) -> None:
    report = check(quickstart)
    assert report.ok
    assert report.text().splitlines() == [
        f"{quickstart} is right: quickstart, encoder_free, 2 stages",
        "  align: alignment on scenes.captions for 16000 samples, trains patch_embedding, "
        "patch_alignment",
        "  learn: language on scenes for 90000 samples, trains patch_embedding, language_model",
    ]


def test_a_mistake_is_shown_under_its_line(quickstart: Path) -> None:
    quickstart.write_text(quickstart.read_text().replace("heads: 4}", "hedas: 4}"))
    lines = check(quickstart).text().splitlines()
    assert lines == [
        f"{quickstart}:5:55: model.language_model.hedas",
        "    language_model: {type: llama, width: 128, depth: 4, hedas: 4}",
        " " * len("    language_model: {type: llama, width: 128, depth: 4, ") + "^",
        "  unknown key.",
        "  Did you mean 'heads'?",
        "",
        f"1 mistake in {quickstart}",
    ]


def test_a_long_line_is_cut_around_the_mistake(quickstart: Path) -> None:
    quickstart.write_text(
        quickstart.read_text().replace("depth: 4, heads: 4}", f"depth: 4,{' ' * 120}heads: 4.5}}")
    )
    lines = check(quickstart).text().splitlines()
    assert len(lines[1]) <= 92
    assert lines[1][lines[2].index("^") :].startswith("4.5")


def test_an_override_has_no_line_to_show(quickstart: Path) -> None:
    lines = check(quickstart, ["seed=x", "sed=1"]).text().splitlines()
    assert lines[0] == "override 'seed=x': seed"
    assert lines[1] == "  expected a whole number, found the text 'x'."
    assert lines[-1] == f"2 mistakes in {quickstart}"


@pytest.mark.parametrize("override", ["name=x", "name='[red]'"])
def test_markup_shows_what_the_user_wrote_as_it_is(quickstart: Path, override: str) -> None:
    from rich.text import Text

    report = check(quickstart, [override])
    assert Text.from_markup(report.text(markup=True)).plain == report.text()


def test_a_missing_file_is_a_mistake_like_any_other(tmp_path: Path) -> None:
    report = check(tmp_path / "none.yaml")
    assert not report.ok
    assert "no such file" in report.text()
