"""An experiment as a function of the values that a search draws."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lit_eve.schema.axes import Axis, Scalar
from lit_eve.schema.experiment import Experiment
from lit_eve.schema.merging import override
from lit_eve.schema.problems import ExperimentErrors, Problem
from lit_eve.schema.searching import Search
from lit_eve.schema.trees import Node

_MIDDLE = 0.381966
"""Where between two ends a fraction is tried."""


@dataclass(frozen=True)
class Variations:
    """What a search makes of an experiment file."""

    tree: Node
    """The file with what it extends and all overrides, and without its `search:`."""
    search: Search
    build: Callable[[Node], Experiment]
    """From such a tree to the experiment."""

    def experiment(self, values: Mapping[str, Scalar]) -> Experiment:
        """The experiment of one setting.

        Args:
            values: key of the space to the number or label drawn; keys that are left out stay as
                the file has them.

        Raises:
            ExperimentErrors: if these values do not fit together.
        """
        changes = {
            key: self.search.space[key].value(values[key])
            for key in self.search.order()
            if key in values
        }
        return self.changed(changes)

    def changed(self, changes: Mapping[str, Any]) -> Experiment:
        """The experiment with other values at some paths.

        Raises:
            ExperimentErrors: if they do not fit.
        """
        problems: list[Problem] = []
        words = [f"{path}={json.dumps(value)}" for path, value in changes.items()]
        tree = override(self.tree, words, problems)
        if problems:
            raise ExperimentErrors(problems)
        return self.build(tree)

    def whole(self, key: str) -> bool:
        """Whether a number of the space has to be whole: its place takes no fraction."""
        axis = self.search.space[key]
        assert axis.bounds is not None
        low, high = axis.bounds
        fraction = low + (high - low) * _MIDDLE
        return self._fault(key, fraction if fraction % 1 else fraction + 0.25) is not None

    def problems(self) -> Iterator[Problem]:
        """What the file would refuse of what may be drawn; each at its key of the space."""
        for key in self.search.order():
            axis = self.search.space[key]
            ends = axis.labels if axis.bounds is None else [_plain(end) for end in axis.bounds]
            for value in ends:
                fault = self._fault(key, value)
                if fault is not None:
                    yield self._mark(key, axis, value, fault)
                    break
            else:
                yield from self._step_problem(key, axis)

    def _step_problem(self, key: str, axis: Axis) -> Iterator[Problem]:
        if axis.step is not None and axis.step % 1 and self.whole(key):
            node = self._node(key)
            yield node.key.problem(
                f"steps of {axis.step:g} lead to fractions, and this has to be whole",
                "Choose a whole step.",
            )

    def _fault(self, key: str, value: Any) -> Problem | None:
        """What is wrong with `value` at `key`, where its conditions hold."""
        try:
            self.experiment({**self._conditions(key), key: value})
        except ExperimentErrors as errors:
            return errors.problems[0]
        return None

    def _conditions(self, key: str) -> dict[str, Scalar]:
        """Values of other keys under which `key` is drawn."""
        values: dict[str, Scalar] = {}
        for other, wanted in self.search.space[key].when.items():
            values |= self._conditions(other)
            values[other] = wanted[0] if isinstance(wanted, list) else wanted
        return values

    def _node(self, key: str) -> Node:
        return self.tree.nearest(("search", "space", key))[1]

    def _mark(self, key: str, axis: Axis, value: Scalar, fault: Problem) -> Problem:
        shown = f"{key}={value}"
        where = "" if fault.key in ("", key) else f" ({fault.key})"
        return self._node(key).key.problem(
            f"{shown} does not fit{where}: {fault.message}", fault.suggestion
        )


def _plain(number: float) -> float | int:
    return int(number) if number.is_integer() else number
