"""Files of evaluation tasks: the shipped ones are right, mistakes are told with their place."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lit_eve.schema import ExperimentErrors
from lit_eve.schema.benchmarks import Benchmark, find_benchmark, limited, load_benchmark
from lit_eve.schema.catalogue import tasks
from lit_eve.schema.json_schema import benchmark_schema
from lit_eve.schema.report import check

FOLDER = Path(__file__).parents[2] / "experiments" / "tasks"
FILES = sorted(FOLDER.glob("*.yaml"))
GOOD = """name: mine
about: Something.
data: {type: lines, path: mine}
metric: {type: exact_match}
"""


@pytest.mark.parametrize("file", FILES, ids=[file.stem for file in FILES])
def test_a_shipped_task_is_right_and_named_like_its_file(file: Path) -> None:
    assert load_benchmark(file).name == file.stem
    assert file.read_text().startswith("# yaml-language-server: $schema=schema.json\n")
    assert check(file).ok


def test_every_public_format_has_a_task() -> None:
    formats = {load_benchmark(file).data.type for file in FILES}
    wanted = {"vqav2", "gqa", "textvqa", "pope", "mme", "mmbench", "scienceqa", "seed", "scenes"}
    assert formats == wanted
    assert {entry.name for entry in tasks(FOLDER.parent)} == {file.stem for file in FILES}


def load(folder: Path, text: str) -> Benchmark:
    (folder / "task.yaml").write_text(text)
    return load_benchmark(folder / "task.yaml")


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ("name: mine", "nam: mine", "task.yaml:1:1: nam: unknown key. Did you mean 'name'"),
        ("type: lines", "type: linez", "Did you mean 'lines'"),
        ("type: exact_match", "type: exact", "data.*|there is no type 'exact'"),
        ("path: mine", "paht: mine", "Did you mean 'path'"),
        ("exact_match}", "vqa_accuracy}\nprompt: hello", "the question is never asked. Add {qu"),
        ("exact_match}", "exact_match}\nprompt: '{question} {hint}'", "{hint} stands for nothing"),
        ("exact_match}", "exact_match}\nprompt: '{question'", "a brace is open"),
        ("exact_match}", "kinds}", "judges by kinds of questions, which lines has not"),
        ("exact_match}", "multiple_choice}", "would not see the letters"),
        ("exact_match}", "multiple_choice, per: token}", "no likelihood"),
        ("exact_match}", "box_iou, least: 2}", "a number of at most 1"),
    ],
)
def test_a_mistake_is_told_with_its_place_and_the_way_out(
    tmp_path: Path, right: str, wrong: str, message: str
) -> None:
    assert right in GOOD
    with pytest.raises(ExperimentErrors) as caught:
        load(tmp_path, GOOD.replace(right, wrong))
    assert any(part in str(caught.value) for part in message.split("|")), str(caught.value)
    assert "task.yaml:" in str(caught.value)


def test_a_limit_that_would_ask_only_one_kind_is_refused(tmp_path: Path) -> None:
    text = GOOD.replace("{type: lines, path: mine}", "{type: scenes}\nlimit: 5")
    with pytest.raises(ExperimentErrors, match="Write `each:` in `data:` instead"):
        load(tmp_path, text)


def test_fewer_questions_are_fewer_of_each_kind_where_there_are_kinds(tmp_path: Path) -> None:
    assert limited(load(tmp_path, GOOD), 3).limit == 3
    scenes = limited(load_benchmark(FOLDER / "scenes.yaml"), 3)
    assert (scenes.limit, scenes.data.each) == (None, 3)  # type: ignore[union-attr]


def test_a_file_may_extend_another_and_place_its_data_by_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "base.yaml").write_text(GOOD)
    monkeypatch.setenv("LIT_EVE_TEST_PLACE", "/lab")
    text = "extends: base.yaml\nname: other\ndata: {path: '${oc.env:LIT_EVE_TEST_PLACE}/x'}\n"
    loaded = load(tmp_path, text)
    assert loaded.name == "other"
    assert loaded.data.path.resolved() == "/lab/x"  # type: ignore[union-attr]


def test_an_unknown_task_is_told_with_the_nearest_names(tmp_path: Path) -> None:
    assert find_benchmark("gqa", FOLDER) == FOLDER / "gqa.yaml"
    assert find_benchmark(str(FOLDER / "gqa.yaml"), tmp_path) == FOLDER / "gqa.yaml"
    with pytest.raises(ValueError, match=r"no task 'pope_ranom'.*Did you mean 'pope_random'\?"):
        find_benchmark("pope_ranom", FOLDER)
    with pytest.raises(ValueError, match="holds no task files"):
        find_benchmark("gqa", tmp_path)


def test_editors_complete_tasks_with_the_schema_of_this_version() -> None:
    written = (FOLDER / "schema.json").read_text()
    assert json.loads(written) == benchmark_schema(), "run `make schema`"


def test_reading_a_task_imports_nothing_heavy() -> None:
    code = (
        "import sys; from lit_eve.schema.benchmarks import load_benchmark; "
        f"load_benchmark({str(FILES[0])!r}); "
        "print([m for m in ('torch', 'lightning', 'transformers', 'numpy') if m in sys.modules])"
    )
    root = FOLDER.parents[1]
    paths = ":".join(map(str, (root, root / "data", root / "callbacks")))
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"
