from __future__ import annotations

import pytest

from lit_eve.schema.interpolation import interpolate
from lit_eve.schema.problems import Problem
from lit_eve.schema.trees import parse


def resolved(text: str) -> object:
    found: list[Problem] = []
    tree = interpolate(parse(text, "x.yaml"), found)
    assert not found, found
    return tree.plain()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: 3\nb: ${a}", 3),
        ("a: {c: 1e-4}\nb: ${a.c}", 1e-4),
        ("a: x\nb: ${a}-${a}", "x-x"),
        ("a: {c: [1, 2]}\nb: ${a}", {"c": [1, 2]}),
        ("a: [5, 6]\nb: ${a.1}", 6),
        ("a: 1\nb: {c: '${..a}'}", {"c": 1}),
        ("b: '\\${a}'", "${a}"),
        ("b: '${oc.env:HOME}/x'", "${oc.env:HOME}/x"),
        ("a: '${oc.env:HOME}'\nb: ${a}/x", "${oc.env:HOME}/x"),
        ("a: 7\nb: '${oc.env:HOME}/${a}'", "${oc.env:HOME}/7"),
    ],
)
def test_a_value_repeats_another(text: str, value: object) -> None:
    result = resolved(text)
    assert isinstance(result, dict)
    assert result["b"] == value


@pytest.mark.parametrize(
    ("value", "message", "suggestion"),
    [
        ("${widht}", "names nothing in this experiment", "Did you mean ${width}?"),
        ("${model.widht}", "names nothing in this experiment", "Did you mean ${width}?"),
        ("${zzz}", "names nothing in this experiment", "Write the full path of a key."),
        ("${b}", "leads back to itself", "Write one of the values out."),
        ("${width", "is no interpolation", "Write ${other.key}, or \\${ for a plain ${."),
        ("${oc.decode:1}", "'oc.decode' cannot be called", "Only ${other.key} and ${oc.env:NAME}"),
        ("${eval:1+1}", "'eval' cannot be called", "Only ${other.key} and ${oc.env:NAME}"),
        ("${oc.env:${width}}", "'oc.env' cannot be called", "Only ${other.key}"),
    ],
)
def test_what_cannot_be_repeated_is_told_at_its_place(
    value: str, message: str, suggestion: str
) -> None:
    found: list[Problem] = []
    interpolate(parse(f"width: 3\nb: '{value}'", "x.yaml"), found)
    (problem,) = found
    assert message in problem.message
    assert suggestion in problem.suggestion
    assert (problem.line, problem.column, problem.key) == (2, 4, "b")


def test_a_repeated_block_keeps_the_place_of_the_reference() -> None:
    tree = interpolate(parse("a: {c: 1}\nb: ${a}", "x.yaml"), [])
    node = tree.at(("b", "c"))
    assert node is not None
    assert node.mark.line == 2
