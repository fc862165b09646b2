"""Confidence intervals of any score: what it would be, had other questions been asked.

Shapes: N answers, K points, G groups, B resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lit_eve.metrics.judging import Judge, Scores, Sums

RESAMPLES = 1_000
LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A score and the interval that its true value lies in, 95 times of a hundred."""

    value: float
    low: float
    high: float

    def as_json(self) -> dict[str, float]:
        """For a file."""
        return {"value": self.value, "low": self.low, "high": self.high}


def estimates(
    judge: Judge,
    points: Sequence[tuple[float, ...]],
    groups: Sequence[str],
    categories: Sequence[str],
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> tuple[dict[str, Estimate], dict[str, dict[str, Estimate]]]:
    """Scores of all answers, and of every category where there are several.

    Groups are resampled, not questions: ten questions about one picture are no ten independent
    ones, and intervals that take them for such are too narrow.

    Args:
        judge: the metric.
        points: of every answer, N.
        groups: what stands or falls together, N names.
        categories: N names.
        seed: of the resamples.
        resamples: B.

    Source:
        Efron and Tibshirani 1993, chapter 13 (percentile intervals); Field and Welsh 2007, section
        2 (resampling clusters).
    """
    rows, group, category, names = _rows(judge, points, groups, categories)
    table = np.empty((resamples + 1, len(names), rows.shape[1]))  # (1 + B, C, K)
    starts = np.searchsorted(category, np.arange(len(names)))  # rows are sorted by category
    table[0] = np.add.reduceat(rows, starts)
    random, number = np.random.default_rng(seed), int(group.max()) + 1
    for resample in range(1, resamples + 1):
        weights = np.bincount(random.integers(0, number, number), minlength=number)  # (G,)
        table[resample] = np.add.reduceat(rows * weights[group, None], starts)
    by_category = {name: table[:, place] for place, name in enumerate(names)}
    overall = _estimated(judge.overall(by_category))
    if len(names) == 1:
        return overall, {}
    return overall, {
        name: _estimated(judge.scores(sums, name)) for name, sums in by_category.items()
    }


def _rows(
    judge: Judge,
    points: Sequence[tuple[float, ...]],
    groups: Sequence[str],
    categories: Sequence[str],
) -> tuple[Sums, NDArray[np.int64], NDArray[np.int64], list[str]]:
    """Sums of every group in every category, sorted by category; numbers of both; names."""
    kinds, category = np.unique(np.array(categories), return_inverse=True)
    members, group = np.unique(np.array(groups), return_inverse=True)
    pair = category.astype(np.int64) * len(members) + group
    pairs, where = np.unique(pair, return_inverse=True)
    sums = np.zeros((len(pairs), len(judge.points)))
    np.add.at(sums, where, np.array(points, np.float64))
    return judge.of_groups(sums), pairs % len(members), pairs // len(members), kinds.tolist()


def _estimated(scores: Scores) -> dict[str, Estimate]:
    tail = 100 * (1 - LEVEL) / 2
    found: dict[str, Estimate] = {}
    for name, values in scores.items():
        low, high = np.percentile(values[1:], [tail, 100 - tail]) if len(values) > 1 else values[:1]
        found[name] = Estimate(float(values[0]), float(low), float(high))
    return found


def as_json(found: dict[str, Estimate]) -> dict[str, Any]:
    """Estimates for a file."""
    return {name: estimate.as_json() for name, estimate in found.items()}
