"""A search: which values of an experiment are tried, how often, and what makes a trial good."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainSerializer

from lit_eve.schema.addresses import Address
from lit_eve.schema.axes import Axis, Bound, Scalar, SpaceAxis
from lit_eve.schema.base import (
    Entries,
    Finding,
    FromList,
    NonNegative,
    PositiveReal,
    Strict,
    written_as,
)
from lit_eve.schema.problems import advise
from lit_eve.schema.pruning import Pruning
from lit_eve.schema.units import Budget, PositiveCount


def _metrics(value: object) -> object:
    if isinstance(value, list):
        return tuple(value)
    return (value,) if isinstance(value, str) else value


def _written_metrics(value: tuple[str, ...] | None) -> object:
    return value[0] if value and len(value) == 1 else value and list(value)


Metrics = Annotated[
    tuple[Annotated[str, Field(min_length=1)], ...],
    BeforeValidator(_metrics, json_schema_input_type=str | list[str]),
    PlainSerializer(_written_metrics),
]
"""A metric, or a list of them."""


class Rerun(Strict):
    """What happens with the best settings in the end: more seeds, more time."""

    rerun: Annotated[str, Field(pattern=r"^best [1-9][0-9]*$")]
    """How many settings: `best 3`."""
    seeds: FromList[tuple[NonNegative, ...]] = Field(min_length=1)
    """Each setting is run with each of these."""
    budget: Budget | None = written_as("for", default=None)
    """Length of the last stage; the trial's own when left out."""

    @property
    def settings(self) -> int:
        """How many settings are run again."""
        return int(self.rerun.split()[1])


Sampler = Literal["tpe", "gp", "cmaes", "nsga2", "random", "grid"]


class Search(Strict):
    """Values of an experiment to try; every trial is a run of its own."""

    minimize: Metrics | None = None
    """Metric, or metrics, to make small: its last value counts."""
    maximize: Metrics | None = None
    """Metric, or metrics, to make large."""
    trials: PositiveCount | None = None
    """How many settings are tried; a grid has its own number."""
    space: Entries[SpaceAxis] = Field(min_length=1)
    """Paths into the experiment, as an override writes them, and what may stand there."""
    sampler: Sampler = "tpe"
    """Who proposes: tpe, gp, cmaes, nsga2, random, or grid for all combinations."""
    startup: NonNegative | None = None
    """Settings drawn at random before the sampler learns; the sampler's own number if left out."""
    seed: NonNegative = 0
    """Of the proposals; the trials' own seed is the experiment's."""
    prune: Pruning | None = None
    """How bad trials are stopped early."""
    require: Entries[Bound] = Field(default={})
    """What other metrics have to be: a trial that fails this is never the best."""
    first: FromList[tuple[Mapping[str, Scalar], ...]] = ()
    """Settings to try first: what is known to work. What they leave out is drawn."""
    minutes: PositiveReal | None = None
    """Longest time of a trial; one that takes longer fails."""
    storage: Address | None = None
    """sqlite file or PostgreSQL; a file in the search's folder when left out."""
    then: Rerun | None = None
    """What happens with the best settings in the end."""

    @property
    def objectives(self) -> tuple[tuple[str, Literal["minimize", "maximize"]], ...]:
        """Metrics with their directions."""
        low = [(name, "minimize") for name in self.minimize or ()]
        high = [(name, "maximize") for name in self.maximize or ()]
        return (*low, *high)  # type: ignore[arg-type]

    def findings(self) -> Iterator[Finding]:
        """What does not fit together."""
        yield from self._objective_findings()
        yield from self._number_findings()
        yield from self._storage_findings()
        for key, axis in self.space.items():
            yield from self._condition_findings(key, axis)
            yield from self._sampler_findings(key, axis)
        for number, point in enumerate(self.first):
            yield from self._point_findings(number, point)

    def _objective_findings(self) -> Iterator[Finding]:
        names = [name for name, _ in self.objectives]
        if not names:
            yield Finding(
                (),
                "nothing says what makes a trial good",
                "Add `minimize: val/loss`, or `maximize:` with a metric.",
                (("minimize",), ("maximize",)),
            )
        if len(set(names)) < len(names):
            yield Finding((), "a metric is to be made small or large twice", "Name it once.")
        if len(names) > 1 and self.prune is not None:
            yield Finding(
                ("prune",),
                f"{len(names)} metrics have no common order, so no trial can be called bad early",
                "Take `prune` out, or keep one metric and put the others under `require:`.",
                (("minimize",), ("maximize",)),
            )
        if len(names) > 1 and self.then is not None:
            yield Finding(
                ("then",),
                f"{len(names)} metrics have no best trial, only a front of them",
                "Take `then` out, or keep one metric and put the others under `require:`.",
                (("minimize",), ("maximize",)),
            )

    def _number_findings(self) -> Iterator[Finding]:
        if self.sampler == "grid":
            for key in ("trials", "startup", "first"):
                if getattr(self, key):
                    yield Finding(
                        (key,),
                        "a grid tries every combination once",
                        "Take it out.",
                        (("sampler",),),
                    )
        elif self.trials is None:
            yield Finding(
                (), "the number of trials is missing", "Add `trials: 24`.", (("trials",),)
            )
        elif len(self.first) > self.trials:
            yield Finding(
                ("first",),
                f"{len(self.first)} first settings do not fit into {self.trials} trials",
                "Raise `trials`.",
                (("trials",),),
            )
        if self.startup is not None and self.sampler == "random":
            yield Finding(("startup",), "a random sampler never learns", "Take it out.")
        if self.then is not None and self.trials and self.then.settings > self.trials:
            yield Finding(
                ("then", "rerun"),
                f"{self.trials} trials have no {self.then.rerun}",
                "Rerun fewer.",
                (("trials",),),
            )

    def _storage_findings(self) -> Iterator[Finding]:
        if self.storage is None or self.storage.startswith("${"):
            return
        if not self.storage.startswith(("sqlite:///", "postgresql+psycopg2://")):
            yield Finding(
                ("storage",),
                f"{self.storage.partition('@')[2] or self.storage!r} is no place that survives a "
                "killed worker",
                "Write sqlite:///file.db on one machine, postgresql+psycopg2://... for several.",
            )

    def _condition_findings(self, key: str, axis: Axis) -> Iterator[Finding]:
        for other, wanted in axis.when.items():
            here = ("space", key, "when", other)
            if other == key or other not in self.space:
                known = [name for name in self.space if name != key]
                yield Finding(
                    here, "this is no other key of the space", advise(other, known, "keys")
                )
                continue
            condition = self.space[other]
            involved = (("space", other),)
            if condition.bounds is not None:
                yield Finding(
                    here,
                    "a condition needs choices, and this is a number",
                    f"Make {other} a list of choices, or take the condition out.",
                    involved,
                )
            for value in wanted if isinstance(wanted, list) else [wanted]:
                if condition.bounds is None and not condition.takes(value):
                    labels = [str(label) for label in condition.labels]
                    yield Finding(
                        here,
                        f"{other} is never {value!r}, so this would never be drawn",
                        advise(str(value), labels, "choices"),
                        involved,
                    )
            if key in self._above(other):
                yield Finding(
                    here, "conditions lead back to this key", "Break the circle.", involved
                )

    def _above(self, key: str) -> set[str]:
        """Keys that decide, over any number of steps, whether `key` is drawn."""
        found: set[str] = set()
        asking = [key]
        while asking:
            axis = self.space.get(asking.pop())
            new = set(axis.when if axis else ()) - found
            found |= new
            asking.extend(new)
        return found

    def _sampler_findings(self, key: str, axis: Axis) -> Iterator[Finding]:
        here = ("space", key)
        if self.sampler == "grid" and axis.bounds is not None and axis.step is None:
            yield Finding(
                here,
                "a grid has no end here",
                "Write choices, or a range with a step.",
                (("sampler",),),
            )
        if self.sampler == "cmaes" and axis.bounds is None:
            yield Finding(
                here,
                "cmaes works on numbers and would draw this one blindly",
                "Write `sampler: tpe`, or make it a number.",
                (("sampler",),),
            )
        if self.sampler in ("cmaes", "gp") and axis.when:
            yield Finding(
                (*here, "when"),
                f"{self.sampler} cannot learn values that are not always there",
                "Write `sampler: tpe`, or take the condition out.",
                (("sampler",),),
            )

    def _point_findings(self, number: int, point: Mapping[str, Scalar]) -> Iterator[Finding]:
        for key, value in point.items():
            here = ("first", number, key)
            axis = self.space.get(key)
            if axis is None:
                yield Finding(
                    here, "this is no key of the space", advise(key, list(self.space), "keys")
                )
            elif not axis.takes(value):
                labels = [str(label) for label in axis.labels]
                low, high = axis.bounds or (0, 0)
                advice = advise(str(value), labels, "choices") if labels else ""
                yield Finding(
                    here,
                    f"{value!r} is never drawn",
                    advice or f"Choose from {low:g} to {high:g}.",
                    (("space", key),),
                )
            elif not self.active(key, point) and set(axis.when) <= set(point):
                yield Finding(
                    here,
                    "its condition does not hold in this setting",
                    "Leave it out.",
                    (("space", key),),
                )

    def active(self, key: str, values: Mapping[str, Any]) -> bool:
        """Whether `key` is drawn when the keys it depends on have been: `values`."""
        return all(
            other in values
            and (values[other] in wanted if isinstance(wanted, list) else values[other] == wanted)
            for other, wanted in self.space[key].when.items()
        )

    def order(self) -> list[str]:
        """Keys in an order in which they can be drawn and put in: conditions and blocks first."""
        names = sorted(self.space, key=lambda key: key.count("."))
        ordered: list[str] = []
        while names:
            key = next(name for name in names if set(self.space[name].when) <= set(ordered))
            names.remove(key)
            ordered.append(key)
        return ordered
