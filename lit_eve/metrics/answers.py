"""How good answers in words are: exactly right, naming the right things, boxes that overlap."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric

COLOURS = frozenset(
    {"red", "green", "blue", "black", "white", "grey", "gray"}
    | {"yellow", "orange", "purple", "pink", "brown", "cyan", "magenta"}
)
BOX_KINDS = frozenset({"question/locate"})
_LINE_NUMBER = re.compile(r"\blines? \d+")
_WORD = re.compile(r"[0-9]|[^\W\d_]+")
_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")


class Box(NamedTuple):
    """Left, top, right and bottom, as shares of width and height."""

    left: float
    top: float
    right: float
    bottom: float


def normalised(text: str) -> str:
    """Text without what does not make an answer wrong: case, spacing, a full stop at the end."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().rstrip(". \n\t").split())


def named(text: str) -> Counter[str]:
    """Digits and colours that a caption names, with how often; numbers of lines do not count."""
    words = _WORD.findall(_LINE_NUMBER.sub(" ", normalised(text)))
    return Counter(word for word in words if word.isdigit() or word in COLOURS)


def answer_box(text: str) -> Box | None:
    """The box a text gives in four numbers; None if it does not."""
    sides = [float(number) for number in _NUMBER.findall(text)]
    if len(sides) != 4 or not all(map(math.isfinite, sides)):
        return None
    box = Box(*sides)
    return box if box.left < box.right and box.top < box.bottom else None


def overlap(one: Box, other: Box) -> float:
    """Intersection over union."""
    width = min(one.right, other.right) - max(one.left, other.left)
    height = min(one.bottom, other.bottom) - max(one.top, other.top)
    shared = max(width, 0.0) * max(height, 0.0)
    return shared / (_area(one) + _area(other) - shared)


def _area(box: Box) -> float:
    return (box.right - box.left) * (box.bottom - box.top)


class Points(NamedTuple):
    """What one answer contributes to the scores of its kind; all but `right` may stay unused."""

    right: float
    """1 or 0."""
    shared: float = 0.0
    """Things that both captions name."""
    mentioned: float = 0.0
    """Things that one caption names, plus those that the other does."""
    overlap: float = 0.0
    """Of the two boxes."""


def points(kind: str, expected: str, given: str, facts: Mapping[str, Any] | None = None) -> Points:
    """Judge one answer.

    Args:
        kind: `caption/...` is judged by the digits and colours it names, `question/locate` by the
            overlap of its box, anything else word for word.
        expected: the answer of the data.
        given: the model's; whatever it is, it is judged.
        facts: what is known of the picture; its `digits`, if there, are what a caption should
            name, however the expected one is worded.

    Raises:
        ValueError: if the expected answer should be a box and is none.
    """
    if kind.startswith("caption/"):
        wanted, got = _worth_naming(expected, facts or {}), named(given)
        return Points(wanted == got, (wanted & got).total(), wanted.total() + got.total())
    if kind in BOX_KINDS:
        wanted_box, box = answer_box(expected), answer_box(given)
        if wanted_box is None:
            raise ValueError(
                f"the expected answer {expected!r} of a {kind} sample is no box, so an overlap "
                "cannot be measured. Correct the data, or give it a kind that is read as words."
            )
        shared = 0.0 if box is None else overlap(wanted_box, box)
        return Points(shared >= 0.5, overlap=shared)
    return Points(normalised(given) == normalised(expected))


def is_right(kind: str, expected: str, given: str, facts: Mapping[str, Any] | None = None) -> bool:
    """Whether an answer counts as right: see `points`; a box has to overlap by half."""
    return points(kind, expected, given, facts).right == 1


def _worth_naming(expected: str, facts: Mapping[str, Any]) -> Counter[str]:
    in_words = named(expected)
    if "digits" not in facts:
        return in_words
    colours = Counter({word: n for word, n in in_words.items() if not word.isdigit()})
    return colours + Counter(str(digit) for digit in facts["digits"])


class AnswerScores(Metric):
    """Scores of answers by kind, and the share of all that are right.

    `question/read` is reported as `read`, the share of right answers; `caption/digits` as
    `caption_digits`, the F1 of what is named over all captions of the kind together;
    `question/locate` as `locate`, the share of boxes that overlap by half, and `locate_iou`,
    the mean overlap; all kinds together as `all`, the share of right answers.

    Args:
        kinds: kinds that will be asked. Others are added as they come; where several processes
            share a score each has to know all of them, so that they hold the same sums.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    def __init__(self, kinds: Sequence[str] = ()) -> None:
        super().__init__()
        self.kinds: list[str] = []
        for kind in kinds:
            self._state_of(kind)

    def update(
        self,
        kind: str,
        expected: str,
        given: str,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        """Count one answer; see `points`."""
        judged = (1.0, *points(kind, expected, given, facts))
        name = self._state_of(kind)
        sums: Tensor = getattr(self, name)
        setattr(self, name, sums + torch.tensor(judged, dtype=sums.dtype, device=sums.device))

    def compute(self) -> dict[str, Tensor]:
        """Every score between 0 and 1, by short name; kinds that nobody asked are left out."""
        scores: dict[str, Tensor] = {}
        asked_of_all, right_of_all = 0.0, 0.0
        for number, kind in enumerate(self.kinds):
            asked, right, shared, mentioned, overlaps = getattr(self, f"sums_{number}").tolist()
            if not asked:
                continue
            name = kind.removeprefix("question/").replace("/", "_")
            scores[name] = torch.tensor(right / asked)
            if kind.startswith("caption/"):
                scores[name] = torch.tensor(2 * shared / mentioned if mentioned else 1.0)
            if kind in BOX_KINDS:
                scores[f"{name}_iou"] = torch.tensor(overlaps / asked)
            asked_of_all, right_of_all = asked_of_all + asked, right_of_all + right
        if asked_of_all:
            scores["all"] = torch.tensor(right_of_all / asked_of_all)
        return scores

    def _state_of(self, kind: str) -> str:
        """Name of the sums of a kind: asked, then those of `Points`."""
        if kind not in self.kinds:
            zeros = torch.zeros(1 + len(Points._fields), dtype=torch.float64)
            self.add_state(f"sums_{len(self.kinds)}", zeros, dist_reduce_fx="sum")
            self.kinds.append(kind)
        return f"sums_{self.kinds.index(kind)}"
