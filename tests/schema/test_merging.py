from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lit_eve.schema import ExperimentErrors, load
from lit_eve.schema.merging import merge, override, read, spread_defaults
from lit_eve.schema.problems import Problem
from lit_eve.schema.trees import Mark, Node, parse, planted

Write = Callable[..., Path]


def plain(text: str, *words: str) -> object:
    found: list[Problem] = []
    tree = override(parse(text, "x.yaml"), words, found)
    assert not found, found
    return tree.plain()


def refused(text: str, *words: str) -> list[Problem]:
    found: list[Problem] = []
    override(parse(text, "x.yaml"), words, found)
    return found


def test_later_files_win_and_the_own_file_is_last(write: Write) -> None:
    write("a: 1\nb: 1\nc: 1\nd: {x: 1, y: 1}", "one.yaml")
    write("b: 2\nc: 2\nd: {y: 2}", "two.yaml")
    file = write("extends: [one.yaml, two.yaml]\nc: 3", "three.yaml")
    assert read(file).plain() == {"a": 1, "b": 2, "c": 3, "d": {"x": 1, "y": 2}}


def test_a_file_may_extend_one_that_extends(write: Write) -> None:
    write("a: 1", "base/one.yaml")
    write("extends: one.yaml\nb: 2", "base/two.yaml")
    file = write("extends: base/two.yaml\nc: 3", "three.yaml")
    assert read(file).plain() == {"a": 1, "b": 2, "c": 3}


def test_a_mistake_in_an_extended_file_is_told_there(quickstart: Path, write: Write) -> None:
    quickstart.write_text(quickstart.read_text().replace("depth: 4", "depth: four"))
    file = write("extends: experiment.yaml\nname: other", "other.yaml")
    with pytest.raises(ExperimentErrors) as caught:
        load(file)
    (problem,) = caught.value.problems
    assert (Path(problem.file).name, problem.line) == ("experiment.yaml", 5)


@pytest.mark.parametrize(
    ("text", "message", "suggestion"),
    [
        ("extends: bsae.yaml", "no such file", "Did you mean 'base.yaml'?"),
        ("extends: nowhere/base.yaml", "no such file", "There is no folder"),
        ("extends: /etc/passwd", "leads out of", "by a path relative to this file"),
        ("extends: ../../../../etc/passwd", "leads out of", "Extend files below the folder"),
        ("extends: {a: 1}", "expected the path of a file", "Write `extends: base.yaml`."),
        ("extends: [base.yaml, 3]", "expected the path of a file", "Write `extends: base.yaml`."),
        ("extends: loop.yaml", "loop.yaml -> back.yaml -> loop.yaml", "Break the circle."),
        ("extends: top.yaml", "files extend each other: top.yaml -> top.yaml", "Break the circle."),
    ],
)
def test_a_file_that_cannot_be_extended_is_told_at_its_line(
    write: Write, text: str, message: str, suggestion: str
) -> None:
    write("a: 1", "base.yaml")
    write("extends: back.yaml", "loop.yaml")
    write("extends: loop.yaml", "back.yaml")
    with pytest.raises(ExperimentErrors) as caught:
        read(write(f"name: x\n{text}", "top.yaml"))
    (problem,) = caught.value.problems
    assert message in problem.message
    assert suggestion in problem.suggestion
    assert problem.line in (1, 2)


def test_a_link_cannot_lead_out(write: Write, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside") / "secret.yaml"
    outside.write_text("a: 1")
    file = write("extends: link.yaml")
    (file.parent / "link.yaml").symlink_to(outside)
    with pytest.raises(ExperimentErrors, match="leads out of"):
        read(file)


def test_files_up_to_the_working_folder_may_be_extended(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write("a: 1", "base.yaml")
    write("extends: ../base.yaml\nb: 2", "studies/one.yaml")
    assert read(Path("studies/one.yaml")).plain() == {"a": 1, "b": 2}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.yaml", None, "no such file. Did you mean 'mising.yaml'?"),
        ("folder", "", "this is a folder. Name a YAML file in it."),
        ("latin.yaml", "name: caf\xe9".encode("latin-1"), "not UTF-8 text. Save it as UTF-8."),
        ("empty.yaml", b"# nothing", "the file is empty. Start with `name: ...`."),
        ("list.yaml", b"- 1", "the file is no block of keys. Start with `name: ...`."),
    ],
)
def test_a_file_that_cannot_be_read_is_told_why(
    write: Write, tmp_path: Path, name: str, content: bytes | str | None, message: str
) -> None:
    write("a: 1", "mising.yaml")
    file = tmp_path / name
    if content == "":
        file.mkdir()
    elif isinstance(content, bytes):
        file.write_bytes(content)
    with pytest.raises(ExperimentErrors) as caught:
        read(file)
    assert message in str(caught.value)


def test_a_block_of_another_type_starts_afresh() -> None:
    base = parse("e: {type: eve, patch: 8, pool: 2}\nf: {type: eve, patch: 8}", "x")
    top = parse("e: {type: linear, patch: 16}\nf: {type: eve, pool: 2}", "y")
    assert merge(base, top).plain() == {
        "e": {"type": "linear", "patch": 16},
        "f": {"type": "eve", "patch": 8, "pool": 2},
    }


@pytest.mark.parametrize(
    ("word", "result"),
    [
        ("a.b=2", {"a": {"b": 2, "c": [1, 2]}}),
        ("a.b=1e-4", {"a": {"b": 1e-4, "c": [1, 2]}}),
        ("a.b=16k samples", {"a": {"b": "16k samples", "c": [1, 2]}}),
        ("a.b=x=y", {"a": {"b": "x=y", "c": [1, 2]}}),
        ("a.c.1=5", {"a": {"b": 1, "c": [1, 5]}}),
        ("a.c=[3]", {"a": {"b": 1, "c": [3]}}),
        ("a={b: 7}", {"a": {"b": 7, "c": [1, 2]}}),
        ("a.new.deep=1", {"a": {"b": 1, "c": [1, 2], "new": {"deep": 1}}}),
        ("a=null", {"a": None}),
    ],
)
def test_an_override_sets_one_value(word: str, result: object) -> None:
    assert plain("a: {b: 1, c: [1, 2]}", word) == result


def test_later_overrides_win() -> None:
    assert plain("a: 1", "a=2", "a=3") == {"a": 3}


def test_keys_with_dots_are_found_and_may_be_quoted() -> None:
    text = "data: {scenes.captions: 1}"
    assert plain(text, "data.scenes.captions=2") == {"data": {"scenes.captions": 2}}
    assert plain(text, 'data."llava.short"=3') == {"data": {"scenes.captions": 1, "llava.short": 3}}


@pytest.mark.parametrize(
    ("word", "message", "suggestion"),
    [
        ("a.b", "this is no override", "Write key=value"),
        ("=3", "this is no override", "Write key=value"),
        ("a =3", "this is no override", "Write key=value"),
        ("a.b.c=3", "a.b is no block of keys, so it has no 'c' to set", "a.b={c: ...}"),
        ("a.c.2=3", "a.c is a list of 2", "Count from 0 to 1."),
        ("a.c.x=3", "a.c is a list of 2", "Count from 0 to 1."),
        ("a.b=[", "this is not YAML", "Check brackets"),
        ("extends=b.yaml", "a file can only extend in the file itself", ""),
    ],
)
def test_an_override_with_nowhere_to_go_is_told_so(
    word: str, message: str, suggestion: str
) -> None:
    (problem,) = refused("a: {b: 1, c: [1, 2]}", word)
    assert message in problem.message
    assert suggestion in problem.suggestion
    assert problem.place == f"override {word!r}"


def test_wrong_overrides_do_not_hide_mistakes_of_the_file(quickstart: Path) -> None:
    quickstart.write_text(quickstart.read_text().replace("depth: 4", "depth: four"))
    with pytest.raises(ExperimentErrors) as caught:
        load(quickstart, ["seed", "sed=3"])
    assert [problem.key for problem in caught.value.problems] == [
        "model.language_model.depth",
        "",
        "sed",
    ]


def test_an_override_of_a_default_that_no_stage_takes_is_a_mistake(quickstart: Path) -> None:
    load(quickstart, ["defaults.batch=64"])
    words = ["stages.align.batch=8", "stages.learn.batch=8", "defaults.batch=64"]
    with pytest.raises(ExperimentErrors) as caught:
        load(quickstart, words)
    (problem,) = caught.value.problems
    assert problem.message == "this has no effect: every stage sets it itself"
    assert "stages.NAME.batch=... for a stage: align, learn" in problem.suggestion


def test_null_takes_an_inherited_entry_away(quickstart: Path, write: Write) -> None:
    text = """
    extends: experiment.yaml
    model: {patch_alignment: null, teacher: null}
    loss: {alignment: null}
    stages: {align: null}
    """
    assert list(load(write(text, "without.yaml")).stages) == ["learn"]


def test_defaults_have_to_be_a_block(quickstart: Path) -> None:
    with pytest.raises(ExperimentErrors, match="Indent what belongs to it"):
        load(quickstart, ["defaults=3"])


keys = st.sampled_from(["a", "b", "type"])
trees = st.recursive(
    st.integers(0, 3), lambda inner: st.dictionaries(keys, inner, max_size=3), max_leaves=8
)
MARK = Mark("x", 1, 1, ())


def node(value: object) -> Node:
    return planted(value, Node(None, MARK, MARK))


@given(trees)
def test_merging_with_itself_changes_nothing(tree: object) -> None:
    assert merge(node(tree), node(tree)).plain() == tree


@given(trees, trees)
def test_every_value_of_the_top_survives_a_merge(base: object, top: object) -> None:
    merged = merge(node(base), node(top))
    for path, leaf in node(top).leaves():
        found = merged.at(path)
        assert found is not None
        assert found.value == leaf.value or leaf.value == {}


@given(trees, trees, trees)
def test_a_stage_is_the_defaults_under_its_own_keys(one: object, two: object, base: object) -> None:
    tree = node({"defaults": {"k": base}, "stages": {"one": {"k": one}, "two": {"k": two}}})
    merged = spread_defaults(tree, []).plain()["stages"]
    assert merged["one"]["k"] == merge(node(base), node(one)).plain()
    assert merged["two"]["k"] == merge(node(base), node(two)).plain()
