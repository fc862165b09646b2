"""What a run left on disk, as flat names and values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import yaml

from lit_eve.running.directory import RunDirectory

Flat = dict[str, Any]


@dataclass(frozen=True)
class RecordedRun:
    """A run, read when asked."""

    directory: RunDirectory

    @property
    def label(self) -> str:
        """Experiment and id."""
        return f"{self.directory.path.parent.name}/{self.directory.id}"

    @cached_property
    def experiment(self) -> dict[str, Any]:
        """The resolved experiment, as plain keys and values."""
        read: dict[str, Any] = yaml.safe_load(self.directory.experiment_file.read_text())
        return read

    @property
    def name(self) -> str:
        """The experiment's name."""
        return str(self.experiment["name"])

    @property
    def seed(self) -> int:
        """The experiment's seed."""
        return int(self.experiment.get("seed", 0))

    @cached_property
    def environment(self) -> dict[str, Any]:
        """Versions, machine, command and code; empty if the run did not get that far."""
        return self._json("environment.json")

    @cached_property
    def data(self) -> dict[str, Any]:
        """Digests of the prepared datasets; empty if the run did not get that far."""
        return self._json("data.json")

    def summary(self, stage: str) -> dict[str, Any]:
        """A stage's summary; empty while it has none."""
        return self.directory.summary(stage) or {}

    @property
    def stages(self) -> list[str]:
        """Names of its stages in order."""
        return list(self.experiment["stages"])

    def scores(self, stage: str | None = None) -> dict[str, float]:
        """Scores at the end of a stage; of the last one that has any if None."""
        names = [stage] if stage else self.stages[::-1]
        for name in names:
            found = self.summary(name).get("scores")
            if found:
                return dict(found)
        return {}

    def _json(self, name: str) -> dict[str, Any]:
        file = self.directory.path / name
        return json.loads(file.read_text()) if file.is_file() else {}


def flat(value: Any, path: str = "") -> Flat:
    """Nested keys as dotted ones; lists are values."""
    if isinstance(value, Mapping) and value:
        found: Flat = {}
        for key, item in value.items():
            found |= flat(item, f"{path}.{key}" if path else str(key))
        return found
    return {path: value}


def differences(one: Flat, other: Flat) -> dict[str, tuple[Any, Any]]:
    """Names whose values differ, with both; None where there is no such name."""
    names = list(dict.fromkeys((*one, *other)))
    return {n: (one.get(n), other.get(n)) for n in names if one.get(n) != other.get(n)}
