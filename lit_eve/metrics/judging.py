"""What every metric of answers is: points of one answer, which add up; scores of their sums.

Because points add up, the same function gives the score of all answers, of a category, and of the
thousand resamples of a confidence interval.

Shapes: N answers, K points, G groups, C categories, B resamples.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

Sums = NDArray[np.float64]
"""(..., K)."""
Scores = dict[str, NDArray[np.float64]]
"""(...) each, by name."""


@dataclass(frozen=True)
class Expected:
    """What an answer is judged by."""

    references: Sequence[str]
    """Right answers; for VQA what ten people said."""
    choices: Sequence[str] = ()
    right: int = -1
    """The right choice."""
    kind: str = ""
    """Kind or category of the question."""
    facts: Mapping[str, Any] = field(default_factory=dict)


class Judge(ABC):
    """A metric."""

    points: ClassVar[tuple[str, ...]]
    """Names of the points of one answer, K."""
    small_is_good: ClassVar[bool] = False

    def read(self, references: Sequence[Sequence[str]]) -> None:
        """Look at all references before the first answer; most metrics need not."""
        return None

    @abstractmethod
    def judge(self, expected: Expected, given: str) -> tuple[float, ...]:
        """Points of one answer."""

    def of_groups(self, sums: Sums) -> Sums:
        """Points of groups of questions that stand or fall together, (G, K) to the same."""
        return sums

    @abstractmethod
    def scores(self, sums: Sums, category: str = "") -> Scores:
        """Scores of sums of points, whatever number of sums at once."""

    def overall(self, sums: Mapping[str, Sums]) -> Scores:
        """Scores of all categories together."""
        return self.scores(np.sum(list(sums.values()), axis=0))


def share(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    """Quotient; 0 where there is nothing to divide by."""
    return np.divide(part, whole, out=np.zeros_like(part, dtype=np.float64), where=whole != 0)
