"""An experiment as YAML."""

from __future__ import annotations

from typing import Any

import yaml
from pydantic import BaseModel

from lit_eve.schema.addresses import ENVIRONMENT

_LINE = 100


class _Dumper(yaml.SafeDumper):
    """Block style down to what fits on a line, quotes only where they are needed."""

    def ignore_aliases(self, data: Any) -> bool:
        """No anchors: every value is written where it stands."""
        return True


def _represent_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def to_yaml(experiment: BaseModel) -> str:
    """The experiment with every default written out, keys in the order of the schema."""
    plain = experiment.model_dump(by_alias=True, exclude_none=False)
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
