"""From the file's words to Optuna's samplers and pruners, and from a trial to its setting."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

from lit_eve.schema.axes import Scalar
from lit_eve.schema.pruning import HyperbandPruning, MedianPruning, Pruning, WilcoxonPruning
from lit_eve.schema.searching import Search
from lit_eve.schema.variations import Variations

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.trial import Trial

Setting = dict[str, Scalar]
"""Key of the space to the number or label drawn for it."""


class Proposer:
    """Draws settings from a space."""

    def __init__(self, variations: Variations) -> None:
        """Args: the experiment as a function of what is drawn."""
        self.variations = variations
        self.search = variations.search
        self.order = self.search.order()
        self.whole = {
            key: variations.whole(key)
            for key, axis in self.search.space.items()
            if axis.bounds is not None
        }

    def draw(self, trial: Trial) -> Setting:
        """The setting of a trial; drawn once, asked again it is the same."""
        setting: Setting = {}
        for key in self.order:
            if self.search.active(key, setting):
                setting[key] = self._draw(trial, key)
        return setting

    def _draw(self, trial: Trial, key: str) -> Scalar:
        axis = self.search.space[key]
        if axis.bounds is None:
            return cast(Scalar, trial.suggest_categorical(key, axis.labels))
        low, high = axis.bounds
        logarithmic = axis.log is not None
        if self.whole[key]:
            step = int(axis.step or 1)
            return trial.suggest_int(key, int(low), int(high), step=step, log=logarithmic)
        return trial.suggest_float(key, low, high, step=axis.step, log=logarithmic)

    def grid(self) -> Iterator[Setting]:
        """Every combination, each once."""
        yield from self._grid(0, {})

    def _grid(self, position: int, setting: Setting) -> Iterator[Setting]:
        if position == len(self.order):
            yield setting
            return
        key = self.order[position]
        if not self.search.active(key, setting):
            yield from self._grid(position + 1, setting)
            return
        for value in self._points(key):
            yield from self._grid(position + 1, {**setting, key: value})

    def _points(self, key: str) -> list[Scalar]:
        axis = self.search.space[key]
        if axis.bounds is None:
            return list(axis.labels)
        assert axis.step is not None  # the file was checked
        low, high = axis.bounds
        count = round((high - low) / axis.step) + 1
        points = [low + number * axis.step for number in range(count)]
        return [int(point) if self.whole[key] else point for point in points]


def sampler(search: Search, slot: int) -> BaseSampler:
    """The sampler for one slot: its random numbers depend on the search's seed and the slot only.

    So one worker draws the same settings again, and two workers never the same by accident.

    Source:
        Optuna 5: TPE (Bergstra et al. 2011; multivariate with grouped conditional spaces, Falkner
        et al. 2018), GP, CMA-ES (Hansen 2016), NSGA-II (Deb et al. 2002).
    """
    from optuna import samplers

    seed = (search.seed * 1_000_003 + slot) % 2**32
    start: dict[str, Any] = {} if search.startup is None else {"n_startup_trials": search.startup}
    match search.sampler:
        case "tpe":
            return samplers.TPESampler(
                seed=seed,
                multivariate=True,
                group=True,
                constant_liar=True,
                **start,
            )
        case "gp":
            return samplers.GPSampler(seed=seed, **start)
        case "cmaes":
            return samplers.CmaEsSampler(seed=seed, **start)
        case "nsga2":
            size: dict[str, Any] = (
                {} if search.startup is None else {"population_size": max(2, search.startup)}
            )
            return samplers.NSGAIISampler(seed=seed, **size)
    return samplers.RandomSampler(seed=seed)


def pruner(options: Pruning | None) -> BasePruner:
    """The pruner of the file's words; steps are optimizer steps, over all stages."""
    from optuna import pruners

    match options:
        case None:
            return pruners.NopPruner()
        case MedianPruning():
            return pruners.MedianPruner(
                n_startup_trials=options.startup, n_warmup_steps=options.after
            )
        case HyperbandPruning():
            return pruners.HyperbandPruner(
                min_resource=max(1, options.after), reduction_factor=options.keep
            )
        case WilcoxonPruning():
            return pruners.WilcoxonPruner(p_threshold=options.p, n_startup_steps=options.reports)
    return pruners.PatientPruner(None, patience=options.reports)


def shown(setting: Mapping[str, Scalar]) -> str:
    """A setting in a few words, for names of runs: `encoder=3e-3 codes=256`."""
    names = short_names(list(setting))
    return " ".join(f"{names[key]}={shown_value(value)}" for key, value in setting.items())


def shown_value(value: Scalar) -> str:
    """A number in few digits, a label as it is."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def short_names(keys: list[str]) -> dict[str, str]:
    """Paths by their last words, as many as tell them apart."""
    names = {}
    for key in keys:
        words = key.split(".")
        for count in range(1, len(words) + 1):
            name = ".".join(words[-count:])
            if sum(other.endswith("." + name) or other == name for other in keys) == 1:
                break
        names[key] = name
    return names
