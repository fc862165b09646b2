"""The schema for editors, tried with a validator of the few words it uses."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lit_eve.schema import load
from lit_eve.schema.base import Strict
from lit_eve.schema.json_schema import json_schema
from lit_eve.schema.trees import parse

Write = Callable[..., Path]
SCHEMA = json_schema()
TYPES: dict[str, Any] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": int | float,
    "boolean": bool,
    "null": type(None),
}
LIMITS: dict[str, Callable[[Any, Any], bool]] = {
    "minimum": lambda value, limit: value >= limit,
    "maximum": lambda value, limit: value <= limit,
    "exclusiveMinimum": lambda value, limit: value > limit,
    "exclusiveMaximum": lambda value, limit: value < limit,
    "multipleOf": lambda value, limit: value % limit == 0,
    "minLength": lambda value, limit: len(value) >= limit,
    "minItems": lambda value, limit: len(value) >= limit,
    "maxItems": lambda value, limit: len(value) <= limit,
    "pattern": lambda value, limit: re.search(limit, value) is not None,
    "enum": lambda value, limit: value in limit,
    "const": lambda value, limit: value == limit,
}
KNOWN = {"type", "anyOf", "$ref", "properties", "additionalProperties", "propertyNames"} | {
    *("items", "description", "examples", "if", "then", "$defs", "$schema"),
    *("title", *LIMITS),
}


def accepts(schema: Any, value: Any) -> bool:
    """Whether a value is valid; every word of the schema has to be one that is understood."""
    assert set(schema) <= KNOWN, set(schema) - KNOWN
    if "$ref" in schema and not accepts(SCHEMA["$defs"][schema["$ref"].split("/")[-1]], value):
        return False
    if "anyOf" in schema and not any(accepts(option, value) for option in schema["anyOf"]):
        return False
    if "type" in schema:
        wanted = TYPES[schema["type"]]
        if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
            return False
    if not all(fits(value, schema[word]) for word, fits in LIMITS.items() if word in schema):
        return False
    if isinstance(value, list):
        shapes = schema.get("items", {})
        each = shapes if isinstance(shapes, list) else [shapes] * len(value)
        return all(accepts(shape, item) for shape, item in zip(each, value, strict=True))
    return not isinstance(value, dict) or accepts_keys(schema, value)


def accepts_keys(schema: Any, value: dict[str, Any]) -> bool:
    known, others = schema.get("properties", {}), schema.get("additionalProperties", {})
    names = schema.get("propertyNames", {})
    return all(
        accepts(names, key)
        and (accepts(known[key], item) if key in known else others is not False)
        and (key in known or accepts(others, item))
        for key, item in value.items()
    )


def test_editors_accept_every_file_that_loads(sample: Path) -> None:
    assert accepts(SCHEMA, parse(sample.read_text(), "x").plain())
    assert accepts(SCHEMA, parse(load(sample).to_yaml(), "x").plain())


@pytest.mark.parametrize(
    "text",
    [
        "extends: base.yaml\nmodel: {language_model: {depth: 2}}",
        "extends: [a.yaml, b.yaml]\nstages: {align: null}",
        "extends: a.yaml\nmodel: {patch_alignment: null}",
        "extends: a.yaml\nmodel: {patch_embedding: {width: '${model.language_model.width}'}}",
        "extends: a.yaml\ndefaults: {for: '${for}', optimizer: {warmup: 200 steps}}",
        "extends: a.yaml\nstages: {learn: {train: {language_model: null}}}",
        "extends: a.yaml\nevaluate: {every: 1k steps, images: 3}",
    ],
)
def test_editors_accept_what_is_only_a_part_of_an_experiment(text: str) -> None:
    assert accepts(SCHEMA, parse(text, "x").plain())


@pytest.mark.parametrize(
    "text",
    [
        "nmae: x",
        "model: {type: encoder_fre}",
        "model: {type: encoder_free, language_model: {type: llama, widht: 3}}",
        "model: {type: encoder_free, language_model: {type: llama, width: wide}}",
        "stages: {learn: {for: 16k apples}}",
        "stages: {learn: {train: {language_model: {rate: 1}}}}",
        "defaults: {batsh: 3}",
        "datasets: {'a b': {type: scenes}}",
        "evaluate: {every: 200 samples}",
        "tracking: none",
    ],
)
def test_editors_warn_of_what_does_not_load(text: str) -> None:
    assert not accepts(SCHEMA, parse(text, "x").plain())


def test_editors_ask_for_the_main_keys_only_where_nothing_is_extended() -> None:
    assert SCHEMA["if"] == {"not": {"required": ["extends"]}}
    assert SCHEMA["then"] == {"required": ["name", "model", "datasets", "stages"]}


def blocks(base: type[Strict]) -> list[type[Strict]]:
    return [block for child in base.__subclasses__() for block in (child, *blocks(child))]


def test_every_key_is_described() -> None:
    for name, definition in {**SCHEMA["$defs"], "top": SCHEMA}.items():
        assert definition.get("description"), name
        for key, item in definition.get("properties", {}).items():
            if key != "type":
                assert item.get("description"), f"{name}.{key}"


def test_descriptions_say_the_default() -> None:
    llama = SCHEMA["$defs"]["Llama"]["properties"]
    assert llama["rope_theta"]["description"].endswith("Default: 10000.0.")
    assert llama["tie_embeddings"]["description"].endswith("Default: true.")


def test_the_schema_is_json_and_always_the_same() -> None:
    assert json.loads(json.dumps(SCHEMA)) == SCHEMA
    assert json.dumps(json_schema()) == json.dumps(SCHEMA)
