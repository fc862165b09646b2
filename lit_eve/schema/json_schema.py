"""The language as a JSON Schema, from which editors complete, explain and warn.

It is more lenient than `load`: a file that `extends:` another, `defaults:` and their stages are all
incomplete by themselves, so no key is required here, and any value may be an interpolation.
"""

from __future__ import annotations

import ast
import inspect
import json
import sys
from functools import cache
from itertools import pairwise
from typing import Any

from pydantic.json_schema import models_json_schema

from lit_eve.schema.base import Strict
from lit_eve.schema.benchmarks import Benchmark
from lit_eve.schema.experiment import (
    ContrastiveExperiment,
    TextExperiment,
    TokenizerExperiment,
    VisionLanguageExperiment,
)

Schema = dict[str, Any]

_EXTENDS: Schema = {
    "description": "A file, or several, that this one starts from; later ones win, this one last.",
    "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
}
_REFERENCE: Schema = {
    "description": "The value of another key.",
    "type": "string",
    "pattern": r"\$\{.+\}",
}


def json_schema() -> Schema:
    """The JSON Schema of experiment files."""
    kinds = (
        *(VisionLanguageExperiment, TokenizerExperiment),
        *(TextExperiment, ContrastiveExperiment),
    )
    definitions = _definitions(*kinds)
    tops = [definitions.pop(kind.__name__) for kind in kinds]
    definitions["Reference"] = _REFERENCE
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "lit-eve experiment",
        "description": "One question, the model that shall answer it, and how it is trained.",
        "type": "object",
        "properties": _top(tops),
        "additionalProperties": False,
        "if": {"not": {"required": ["extends"]}},
        "then": {"required": ["name", "model", "datasets", "stages"]},
        "$defs": definitions,
    }


def benchmark_schema() -> Schema:
    """The JSON Schema of files of evaluation tasks."""
    definitions = _definitions(Benchmark)
    top = definitions.pop("Benchmark")
    definitions["Reference"] = _REFERENCE
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "lit-eve task",
        "description": "Questions, how they are put to a model, and how its answers are judged.",
        "type": "object",
        "properties": {"extends": _EXTENDS, **top["properties"]},
        "additionalProperties": False,
        "if": {"not": {"required": ["extends"]}},
        "then": {"required": ["name", "about", "data", "metric"]},
        "$defs": definitions,
    }


def _definitions(*kinds: type[Strict]) -> Schema:
    """Every block that some kinds of files are made of, described and lenient."""
    _, collected = models_json_schema([(kind, "validation") for kind in kinds], by_alias=True)
    definitions: Schema = collected["$defs"]
    for block in _blocks(Strict):
        if block.__name__ in definitions:
            _describe(definitions[block.__name__], block)
    return {name: _lenient(item) for name, item in definitions.items()}


def _top(kinds: list[Schema]) -> Schema:
    """Keys of the file: what either kind of experiment has, and what only files have."""
    stages = _either([kind["properties"]["stages"]["additionalProperties"] for kind in kinds])
    properties: Schema = {"extends": _EXTENDS}
    for kind in kinds:
        for key, item in kind["properties"].items():
            alternatives = [other["properties"].get(key, item) for other in kinds]
            description = item.get("description", "")
            properties[key] = {"description": description, **_either(alternatives)}
    properties["stages"] = {
        "description": properties["stages"]["description"],
        "type": "object",
        "additionalProperties": _either([stages, {"type": "null"}]),
    }
    properties["defaults"] = {"description": "What every stage starts from.", **stages}
    return properties


def _either(alternatives: list[Schema]) -> Schema:
    """One schema for any of several; alternatives among them become alternatives of the whole."""
    found: list[Schema] = []
    for item in alternatives:
        bare = {key: value for key, value in item.items() if key != "description"}
        inner = [_either([option]) for option in bare["anyOf"]] if set(bare) == {"anyOf"} else []
        for option in [flat for part in inner for flat in part.get("anyOf", [part])] or [bare]:
            if option not in found:
                found.append(option)
    return found[0] if len(found) == 1 else {"anyOf": found}


def _lenient(item: Any) -> Any:
    """The same schema for values that may be incomplete or interpolated."""
    if isinstance(item, list):
        return [_lenient(part) for part in item]
    if not isinstance(item, dict):
        return item
    kept = {
        "anyOf" if key == "oneOf" else key: _lenient_properties(value)
        if key == "properties"
        else _lenient(value)
        for key, value in item.items()
        if key not in ("required", "title", "discriminator", "default", "minProperties")
    }
    if "prefixItems" in kept:
        kept["items"] = kept.pop("prefixItems")  # the word of the draft that editors know
    for pattern, named in kept.pop("patternProperties", {}).items():
        kept |= {"propertyNames": {"pattern": pattern}, "additionalProperties": named}
    extra = kept.get("additionalProperties")
    if isinstance(extra, dict):
        kept["additionalProperties"] = _either([extra, {"type": "null"}])
    words = kept.get("type") == "string" and ("pattern" in kept or "enum" in kept)
    if words or kept.get("type") in ("integer", "number", "boolean"):
        description = {key: kept.pop(key) for key in ("description",) if key in kept}
        return {**description, "anyOf": [kept, {"$ref": "#/$defs/Reference"}]}
    return kept | _either([kept]) if "anyOf" in kept else kept


def _lenient_properties(properties: Schema) -> Schema:
    return {name: _lenient(item) for name, item in properties.items()}


def _describe(definition: Schema, block: type[Strict]) -> None:
    """Put the docstrings of fields, and their defaults in words, into a definition."""
    for name, field in block.model_fields.items():
        item = definition["properties"][str(field.validation_alias or name)]
        text = next((docs[name] for docs in map(_docstrings, block.__mro__) if name in docs), "")
        default = item.get("default")
        if isinstance(default, str | int | float):
            text += f" Default: {json.dumps(default)}."
        item["description"] = text


@cache
def _docstrings(block: type) -> dict[str, str]:
    """The string under each field of a class."""
    if not (issubclass(block, Strict) and block is not Strict):
        return {}
    tree = ast.parse(inspect.getsource(sys.modules[block.__module__]))
    body = next(
        node.body
        for node in tree.body
        if isinstance(node, ast.ClassDef) and node.name == block.__name__
    )
    found = {}
    for field, text in pairwise(body):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(text, ast.Expr)
            and isinstance(text.value, ast.Constant)
        ):
            found[field.target.id] = " ".join(str(text.value.value).split())
    return found


def _blocks(base: type[Strict]) -> list[type[Strict]]:
    """Every block of the language."""
    return [block for child in base.__subclasses__() for block in (child, *_blocks(child))]
