from __future__ import annotations

import pytest

from lit_eve.schema.problems import ExperimentErrors
from lit_eve.schema.trees import parse


def mistakes(text: str) -> str:
    with pytest.raises(ExperimentErrors) as caught:
        parse(text, "x.yaml")
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1E5", 1e5),
        ("-.5", -0.5),
        ("3", 3),
        ("true", True),
        ("~", None),
        ("", None),
        ("no", "no"),
        ("on", "on"),
        ("010", "010"),
        ("1:30", "1:30"),
        ("0x1F", "0x1F"),
        ("1_000", "1_000"),
        ("2024-01-01", "2024-01-01"),
        (".nan", ".nan"),
        ("'3'", "3"),
    ],
)
def test_plain_words_are_what_they_look_like(text: str, value: object) -> None:
    found = parse(f"key: {text}", "x.yaml").plain()["key"]
    assert found == value
    assert type(found) is type(value)


def test_every_key_and_value_knows_its_place() -> None:
    tree = parse("a:\n  b: [1, 22]\n", "x.yaml")
    node = tree.at(("a", "b", 1))
    assert node is not None
    assert (node.mark.line, node.mark.column) == (2, 10)
    key = tree.at(("a", "b"))
    assert key is not None
    assert (key.key.line, key.key.column) == (2, 3)


def test_a_key_given_twice_names_both_lines() -> None:
    assert mistakes("a: 1\nb: 2\na: 3") == (
        "x.yaml:3:1: a: this key is here twice, first in line 1. Keep one."
    )


def test_a_file_cannot_run_code() -> None:
    text = mistakes("a: !!python/object/apply:os.system ['true']\nb: !mine 1")
    assert text.count("Experiment files hold data only.") == 2


def test_aliases_cannot_unfold_into_a_bomb() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 7)]
    assert "Write them out." in mistakes("\n".join(lines))


def test_an_alias_of_itself_is_refused() -> None:
    assert "too many values" in mistakes("a: &a [*a]") or "not YAML" in mistakes("a: &a [*a]")


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("a: [1, 2", "A bracket or a comma is missing"),
        ("a:\n\t- 1", "spaces, not with tabs"),
        ("a: b: c", "Put a text that holds ': ' in quotes"),
        ("a: 'x", "Check brackets, quotes and indentation"),
        ("a: 1\n---\nb: 2", "Check brackets"),
        ("1: x", "Put it in quotes"),
        ("a: &a {b: 1}\nc: {<<: *a}", "Use `extends:` or `defaults:`"),
        ("a: !!int x", "is no int"),
        ("a: \x00", "not YAML"),
    ],
)
def test_what_is_no_yaml_is_told_what_to_look_for(text: str, advice: str) -> None:
    assert advice in mistakes(text)
