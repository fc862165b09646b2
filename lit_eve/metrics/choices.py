"""Answers among few: letters of choices, yes and no, boxes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from lit_eve.metrics.answers import Box, answer_box, normalised, overlap
from lit_eve.metrics.judging import Expected, Judge, Scores, Sums, share

_ONLY = re.compile(r"\(?([A-Z])(?:[).:,\n]|$)")
_NAMED = re.compile(r"(?i:\b(?:answer|option|choice)(?:\s+is)?\s*:?\s*)\(?([A-Z])\b")


def chosen(text: str, choices: Sequence[str]) -> int | None:
    """The choice that an answer names, None if it names none.

    By its letter at the start (`B`, `(B)`, `B. a dog`), by one after a word such as `answer`, or by
    its own words.
    """
    said = text.strip()
    for found in (_ONLY.match(said), _NAMED.search(said)):
        number = -1 if found is None else ord(found[1]) - ord("A")
        if 0 <= number < len(choices):
            return number
    if len(said) == 1 and said.upper() != said and ord(said) - ord("a") < len(choices):
        return ord(said) - ord("a")
    words = [normalised(choice) for choice in choices]
    return words.index(normalised(said)) if normalised(said) in words else None


class MultipleChoice(Judge):
    """The share of right choices, and of groups with none wrong (MMBench's circular evaluation).

    Source:
        Liu et al. 2023, arXiv:2307.06281, section 4.1 (CircularEval).
    """

    points: ClassVar = ("asked", "right", "unread", "groups", "whole")

    def judge(self, expected: Expected, given: str) -> tuple[float, ...]:
        """By the letter or the words of the choice; neither is wrong."""
        number = chosen(given, expected.choices)
        return 1.0, float(number == expected.right), float(number is None), 0.0, 0.0

    def of_groups(self, sums: Sums) -> Sums:
        """A group is whole if all its answers are right."""
        sums = sums.copy()
        sums[:, 3], sums[:, 4] = 1.0, sums[:, 0] == sums[:, 1]
        return sums

    def scores(self, sums: Sums, category: str = "") -> Scores:
        """`accuracy`, `all_right` (share of groups), `unread` (answers that name no choice)."""
        asked = sums[..., 0]
        return {
            "accuracy": share(sums[..., 1], asked),
            "all_right": share(sums[..., 4], sums[..., 3]),
            "unread": share(sums[..., 2], asked),
        }


def pope_answer(text: str) -> str:
    """Yes or no as POPE reads it: no if the first sentence says no or not, else yes."""
    words = text.partition(".")[0].replace(",", "").lower().split()
    return "no" if {"no", "not"} & set(words) else "yes"


class YesNo(Judge):
    """Accuracy, precision, recall and F1 of yes, and how often yes is said.

    Source:
        Li et al. 2023, arXiv:2305.10355, section 5.1, and its published evaluation.
    """

    points: ClassVar = ("true_yes", "false_yes", "true_no", "false_no")

    def judge(self, expected: Expected, given: str) -> tuple[float, ...]:
        """One of four cells."""
        said, right = pope_answer(given), expected.references[0]
        cell = 2 * (said == "no") + (said != right)
        return tuple(float(place == cell) for place in range(4))

    def scores(self, sums: Sums, category: str = "") -> Scores:
        """`f1`, `accuracy`, `precision`, `recall`, `yes`."""
        true_yes, false_yes, true_no, false_no = (sums[..., place] for place in range(4))
        return {
            "f1": share(2 * true_yes, 2 * true_yes + false_yes + false_no),
            "accuracy": share(true_yes + true_no, sums.sum(-1)),
            "precision": share(true_yes, true_yes + false_yes),
            "recall": share(true_yes, true_yes + false_no),
            "yes": share(true_yes + false_yes, sums.sum(-1)),
        }


def mme_answer(text: str) -> str:
    """Yes, no or other as MME reads it: the word, its letter, or one among the first four."""
    said = text.lower().strip().replace(".", "")
    if said in ("yes", "y"):
        return "yes"
    if said in ("no", "n"):
        return "no"
    start = said[:4] if len(said) > 1 else ""
    return "yes" if "yes" in start else "no" if "no" in start else "other"


class Mme(Judge):
    """MME's scores: of a category 100 times accuracy plus accuracy+, summed over categories.

    Args:
        halves: name of each half, and the categories it sums.

    Source:
        Fu et al. 2023, arXiv:2306.13394, section 2.3.
    """

    points: ClassVar = ("asked", "right", "pictures", "both")

    def __init__(self, halves: Mapping[str, Sequence[str]]) -> None:
        self.halves = halves

    def judge(self, expected: Expected, given: str) -> tuple[float, ...]:
        """Neither yes nor no is wrong."""
        return 1.0, float(mme_answer(given) == expected.references[0]), 0.0, 0.0

    def of_groups(self, sums: Sums) -> Sums:
        """A picture counts for accuracy+ if both its answers are right."""
        sums = sums.copy()
        sums[:, 2], sums[:, 3] = 1.0, sums[:, 0] == sums[:, 1]
        return sums

    def scores(self, sums: Sums, category: str = "") -> Scores:
        """`score` of 200, `accuracy` and `accuracy_plus`."""
        accuracy = share(sums[..., 1], sums[..., 0])
        plus = share(sums[..., 3], sums[..., 2])
        return {"score": 100 * (accuracy + plus), "accuracy": accuracy, "accuracy_plus": plus}

    def overall(self, sums: Mapping[str, Sums]) -> Scores:
        """A sum for each half, and accuracies over all."""
        totals = {
            half: np.sum([self.scores(sums[name])["score"] for name in names if name in sums], 0)
            for half, names in self.halves.items()
        }
        everything = super().overall(sums)
        del everything["score"]
        return {**totals, **everything}


class BoxOverlap(Judge):
    """The share of boxes that overlap the right one by enough, and the mean overlap.

    Args:
        least: overlap (intersection over union) that counts as right.
        scale: what answers' coordinates are shares of.
    """

    points: ClassVar = ("asked", "right", "overlap", "unread")

    def __init__(self, least: float = 0.5, scale: float = 1.0) -> None:
        self.least, self.scale = least, scale

    def judge(self, expected: Expected, given: str) -> tuple[float, ...]:
        """Against the reference, a box in shares of the picture's sides.

        Raises:
            ValueError: if the reference is no box.
        """
        wanted, box = answer_box(expected.references[0]), answer_box(given)
        if wanted is None:
            raise ValueError(
                f"the reference {expected.references[0]!r} is no box (four numbers, left and top "
                "first), so an overlap cannot be measured. Choose another metric."
            )
        if box is None:
            return 1.0, 0.0, 0.0, 1.0
        shared = overlap(wanted, Box(*(side / self.scale for side in box)))
        return 1.0, float(shared >= self.least), shared, 0.0

    def scores(self, sums: Sums, category: str = "") -> Scores:
        """`accuracy`, `iou`, `unread` (answers that are no box)."""
        names = ("accuracy", "iou", "unread")
        return {n: share(sums[..., place], sums[..., 0]) for place, n in enumerate(names, 1)}
