"""A search as its storage holds it: the study of its trials, and the one of its reruns."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lit_eve.schema import Experiment
from lit_eve.schema.loading import variations
from lit_eve.schema.searching import Rerun, Search
from lit_eve.schema.variations import Variations
from lit_eve.tracking.searches import SEARCH_FOLDER
from lit_eve.tuning.proposing import Proposer, Setting, pruner, sampler
from lit_eve.tuning.slots import Slots
from lit_eve.tuning.storage import StorageError, alone, complete, connect

if TYPE_CHECKING:
    from optuna import Study
    from optuna.samplers import BaseSampler
    from optuna.storages import RDBStorage
    from optuna.trial import FrozenTrial

SPACE = "space"
EXPERIMENT = "experiment"
SETTING = "setting"
"""Attribute of a rerun: the setting, as drawn for the trial `SOURCE`."""
SOURCE, SEED, RANK = "trial", "seed", "rank"


@dataclass(frozen=True)
class Place:
    """Where a search comes from and where it puts things."""

    file: Path
    overrides: Sequence[str]
    tiny: bool
    runs: Path
    data: Path

    @cached_property
    def variations(self) -> Variations:
        """The experiment as a function of what is drawn.

        Raises:
            ExperimentErrors: with everything that is wrong with the file.
            ValueError: if it declares no search.
        """
        return variations(self.file, self.overrides, self.tiny)

    @property
    def search(self) -> Search:
        """The file's `search:`."""
        return self.variations.search

    @cached_property
    def experiment(self) -> Experiment:
        """The experiment as it stands, before anything is drawn."""
        return self.variations.experiment({})

    @property
    def root(self) -> Path:
        """The folder of the search and its trials."""
        return (self.runs / self.experiment.name).absolute()

    @property
    def folder(self) -> Path:
        """The search's own run directory."""
        return self.root / SEARCH_FOLDER

    @property
    def url(self) -> str:
        """The storage's address."""
        storage = self.search.storage
        return complete(storage.resolved() if storage else "", self.folder)


class Searching:
    """The studies of a search in their storage."""

    def __init__(self, place: Place, create: bool) -> None:
        """Open the studies; make them, with their slots, if `create`.

        Args:
            place: the search.
            create: whether this process may start the search.

        Raises:
            StorageError: if the storage cannot be used, or holds another search of this name.
        """
        self.place, self.search, self.name = place, place.search, place.experiment.name
        self.proposer = Proposer(place.variations)
        self.url = place.url
        try:
            with alone(self.url):
                self.storage = connect(self.url)
                if create:
                    self._create()
        except StorageError:
            raise
        except Exception as error:  # a driver's own way to say that the server is away
            from lit_eve.tuning.storage import unreachable

            raise StorageError(unreachable(self.url, error)) from error
        self._check()
        self.trials = Slots(self._load(self.name), self.url)

    def reruns(self) -> Slots | None:
        """The slots of `then:`, made by whoever comes first; None without `then:`, or too early."""
        if self.search.then is None or self.trials.unfinished():
            return None
        with alone(self.url):
            name = f"{self.name} then"
            if name not in _names(self.storage):
                self._create_reruns(name, self.search.then)
        return Slots(self._load(name), self.url)

    def sampler(self, slot: int) -> BaseSampler:
        """Who proposes for a slot."""
        return sampler(self.search, slot)

    def directory(self, slot: int) -> Path:
        """The run directory of a trial."""
        return self.place.root / f"trial-{slot:03d}"

    def rerun_directory(self, rerun: FrozenTrial) -> Path:
        """The run directory of a rerun."""
        return self.place.root / f"best-{rerun.user_attrs[RANK]}-seed-{rerun.user_attrs[SEED]}"

    def rerun_experiment(self, rerun: FrozenTrial) -> Experiment:
        """The experiment of a rerun: the trial's, with another seed and perhaps more time."""
        then = self.search.then
        assert then is not None
        changes: dict[str, Any] = {
            key: self.search.space[key].value(value)
            for key, value in rerun.user_attrs[SETTING].items()
        }
        changes["seed"] = rerun.user_attrs[SEED]
        if then.budget is not None:
            changes[f"stages.{list(self.place.experiment.stages)[-1]}.for"] = str(then.budget)
        return self.place.variations.changed(changes)

    def best(self, count: int = 1) -> list[FrozenTrial]:
        """The best complete trials that meet what is required, the best first.

        Of several objectives the front of those that no other beats in all, by trial number.
        """
        found = [t for t in self.trials.trials() if t.state.name == "COMPLETE" and feasible(t)]
        if len(self.search.objectives) > 1:
            return [t for t in found if not any(self._beats(other, t) for other in found)]
        return sorted(found, key=lambda t: (self._losses(t), t.number))[:count]

    def _losses(self, trial: FrozenTrial) -> tuple[float, ...]:
        """Objectives of a trial, all to be small."""
        return tuple(
            -value if direction == "maximize" else value
            for value, (_, direction) in zip(trial.values, self.search.objectives, strict=True)
        )

    def _beats(self, one: FrozenTrial, other: FrozenTrial) -> bool:
        mine, its = self._losses(one), self._losses(other)
        return mine != its and all(a <= b for a, b in zip(mine, its, strict=True))

    def _load(self, name: str) -> Study:
        import optuna

        return optuna.load_study(
            study_name=name,
            storage=self.storage,
            sampler=sampler(self.search, 0),
            pruner=pruner(self.search.prune if name == self.name else None),
        )

    def _create(self) -> None:
        """The study and its slots; what is there already stays. Called alone."""
        import optuna

        if self.name in _names(self.storage):
            study = self._load(self.name)
        else:
            directions = [direction for _, direction in self.search.objectives]
            study = optuna.create_study(
                study_name=self.name, storage=self.storage, directions=directions
            )
            study.set_user_attr(SPACE, _space_text(self.search))
            study.set_user_attr(EXPERIMENT, _experiment_text(self.place.experiment))
        if study.user_attrs.get(SPACE) != _space_text(self.search):
            return  # refused by the check
        points = self._points()
        for point in points[len(study.get_trials(deepcopy=False)) :]:
            study.enqueue_trial(point)

    def _points(self) -> list[Setting]:
        """What each slot is given to start with: nothing, a first setting, or a point of a grid."""
        if self.search.sampler == "grid":
            return list(self.proposer.grid())
        assert self.search.trials is not None  # the file was checked
        first: list[Setting] = [dict(point) for point in self.search.first]
        return [*first, *({} for _ in range(self.search.trials - len(first)))]

    def _create_reruns(self, name: str, then: Rerun) -> None:
        import optuna

        study = optuna.create_study(
            study_name=name,
            storage=self.storage,
            directions=[direction for _, direction in self.search.objectives],
        )
        for rank, trial in enumerate(self.best(then.settings), 1):
            for seed in then.seeds:
                attributes = {SETTING: trial.params, SOURCE: trial.number, SEED: seed, RANK: rank}
                study.enqueue_trial({}, user_attrs=attributes)

    def _check(self) -> None:
        """The storage's search is this one.

        Raises:
            StorageError: if there is none, or another one.
        """
        import optuna

        if self.name not in _names(self.storage):
            raise StorageError(
                f"there is no search {self.name!r} in the storage, so there is nothing to work on. "
                f"Start it first: lit-eve search {self.place.file}"
            )
        known = optuna.load_study(study_name=self.name, storage=self.storage).user_attrs
        texts = {
            SPACE: _space_text(self.search),
            EXPERIMENT: _experiment_text(self.place.experiment),
        }
        for word, text in texts.items():
            if known.get(word) != text:
                raise StorageError(
                    f"the storage holds another search {self.name!r}: {word} differs in "
                    f"{_difference(known.get(word, '{}'), text)}. Its trials cannot be compared "
                    f"with new ones. Give this search another `name:`, or remove "
                    f"{self.place.root} and its storage to start again."
                )


def feasible(trial: FrozenTrial) -> bool:
    """Whether a trial meets what is required."""
    return all(value <= 0 for value in trial.constraints.values())


def digest(text: str) -> str:
    """A short name of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _names(storage: RDBStorage) -> list[str]:
    return [study.study_name for study in storage.get_all_studies()]


def _space_text(search: Search) -> str:
    """Everything that makes trials comparable: the space, the objectives, what is required."""
    plain = search.model_dump(by_alias=True)
    kept = ("minimize", "maximize", "space", "require")
    return json.dumps({key: plain[key] for key in kept if key in plain}, sort_keys=True)


def _experiment_text(experiment: Experiment) -> str:
    """The experiment without what changes no number."""
    plain = experiment.model_dump(by_alias=True)
    left_out = ("hardware", "tracking", "checkpoint", "question", "search")
    return json.dumps({k: v for k, v in plain.items() if k not in left_out}, sort_keys=True)


def _difference(before: str, after: str) -> str:
    """Paths at which two JSON texts differ, the first few."""
    found = sorted(_paths(json.loads(before), json.loads(after)))
    return ", ".join(found[:3]) + (f" and {len(found) - 3} more" if len(found) > 3 else "")


def _paths(before: object, after: object, above: str = "") -> list[str]:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        keys = sorted({*before, *after})
        return [
            path
            for key in keys
            for path in _paths(before.get(key), after.get(key), f"{above}.{key}".lstrip("."))
        ]
    return [] if before == after else [above or os.curdir]
