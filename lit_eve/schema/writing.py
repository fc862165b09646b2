"""An experiment as YAML."""

from __future__ import annotations

from typing import Any

import yaml

from lit_eve.schema.addresses import ENVIRONMENT

_LINE = 100
_SHORT = 88
"""Characters up to which a block without blocks stays on one line."""


class _Dumper(yaml.SafeDumper):
    """One line for what fits on one, no anchors, lines of text kept as lines."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def _represent_block(dumper: _Dumper, block: dict[str, Any]) -> yaml.MappingNode:
    flat = not any(isinstance(value, dict) for value in block.values())
    short = len(str(block)) <= _SHORT
    return dumper.represent_mapping("tag:yaml.org,2002:map", block, flow_style=flat and short)


def _represent_list(dumper: _Dumper, items: list[Any]) -> yaml.SequenceNode:
    return dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=True)


_Dumper.add_representer(str, _represent_text)
_Dumper.add_representer(dict, _represent_block)
_Dumper.add_representer(list, _represent_list)


def to_yaml(plain: dict[str, Any]) -> str:
    """Plain keys and values as YAML, in the order of `plain`."""
    return yaml.dump(
        _escaped(plain), Dumper=_Dumper, sort_keys=False, width=_LINE, allow_unicode=True
    )


def _escaped(value: Any) -> Any:
    """The same, with `${` kept from being read as an interpolation, environment references not."""
    match value:
        case str() if "${" in value:
            kept = ENVIRONMENT.sub(lambda match: match.group().replace("${", "\0"), value)
            return kept.replace("${", "\\${").replace("\0", "${")
        case dict():
            return {key: _escaped(item) for key, item in value.items()}
        case list():
            return [_escaped(item) for item in value]
    return value
