"""Letters, yes and no, boxes: what is read from an answer, and scores worked by hand."""

from __future__ import annotations

import random

import numpy as np
import pytest
from sklearn.metrics import (  # type: ignore[import-untyped]
    accuracy_score,
    f1_score,
    precision_score,
    recall_score,
)

from lit_eve.metrics.choices import (
    BoxOverlap,
    Mme,
    MultipleChoice,
    YesNo,
    chosen,
    mme_answer,
    pope_answer,
)
from lit_eve.metrics.judging import Expected

CHOICES = ["a red bus", "a dog", "Two", "none of these"]


@pytest.mark.parametrize(
    ("answer", "number"),
    [
        ("B", 1),
        ("b", 1),
        (" B. a dog", 1),
        ("(C)", 2),
        ("C: two", 2),
        ("D)\nbecause", 3),
        ("The answer is A.", 0),
        ("Answer: (D)", 3),
        ("I would choose option C", 2),
        ("a dog.", 1),
        ("A dog", 1),
        ("two", 2),
        ("E", None),
        ("a bus", None),
        ("Because", None),
        ("", None),
        ("the answer is a dog of some kind", None),
    ],
)
def test_the_choice_that_an_answer_names(answer: str, number: int | None) -> None:
    assert chosen(answer, CHOICES) == number


def test_rotations_are_right_together() -> None:
    judge = MultipleChoice()
    points = [
        judge.judge(Expected((), CHOICES, right), given)
        for right, given in [(0, "A"), (1, "B"), (2, "C"), (3, "A"), (0, "hm")]
    ]
    groups = [points[0:2], points[2:4], points[4:5]]
    sums = judge.of_groups(np.array([np.sum(group, axis=0) for group in groups]))
    scores = {name: float(value) for name, value in judge.scores(sums.sum(0)).items()}
    assert scores == pytest.approx({"accuracy": 3 / 5, "all_right": 1 / 3, "unread": 1 / 5})


@pytest.mark.parametrize(
    ("answer", "pope", "mme"),
    [
        ("Yes", "yes", "yes"),
        ("No.", "no", "no"),
        ("No, there is not", "no", "no"),
        ("There is not any dog.", "no", "other"),
        ("It has a dog. No cat.", "yes", "other"),
        ("Nothing", "yes", "no"),
        ("y", "yes", "yes"),
        ("n", "yes", "no"),
        ("a", "yes", "other"),
        ("", "yes", "other"),
    ],
)
def test_yes_and_no_are_read_as_each_benchmark_reads_them(answer: str, pope: str, mme: str) -> None:
    assert (pope_answer(answer), mme_answer(answer)) == (pope, mme)


def test_yes_no_scores_are_those_of_scikit_learn() -> None:
    chance = random.Random(2)
    wanted = [chance.choice(["yes", "no"]) for _ in range(40)]
    given = [chance.choice(["Yes", "No, no", "yes, it is"]) for _ in range(40)]
    judge = YesNo()
    sums = np.sum([judge.judge(Expected([w]), g) for w, g in zip(wanted, given, strict=True)], 0)
    said = ["no" if answer.startswith("No") else "yes" for answer in given]
    assert {name: float(value) for name, value in judge.scores(sums).items()} == pytest.approx(
        {
            "f1": f1_score(wanted, said, pos_label="yes"),
            "accuracy": accuracy_score(wanted, said),
            "precision": precision_score(wanted, said, pos_label="yes"),
            "recall": recall_score(wanted, said, pos_label="yes"),
            "yes": said.count("yes") / 40,
        }
    )


def test_yes_that_never_occurs_scores_zero_and_no_error() -> None:
    judge = YesNo()
    scores = judge.scores(np.array(judge.judge(Expected(["no"]), "no")))
    assert [float(scores[name]) for name in ("f1", "precision", "accuracy")] == [0, 0, 1]


# existence: pictures (yes yes), (yes no): accuracy 3/4, accuracy+ 1/2 -> 125. count: (no no) -> 0.
def test_mme_sums_accuracy_and_accuracy_plus_over_categories() -> None:
    judge = Mme({"perception": ["existence", "count"], "cognition": ["code"]})
    right, wrong = judge.judge(Expected(["yes"]), "Yes"), judge.judge(Expected(["yes"]), "No")
    pictures = {"existence": [[right, right], [right, wrong]], "count": [[wrong, wrong]]}
    sums = {
        name: judge.of_groups(np.array([np.sum(p, axis=0) for p in group])).sum(0)
        for name, group in pictures.items()
    }
    assert float(judge.scores(sums["existence"], "existence")["score"]) == 125
    overall = {name: float(value) for name, value in judge.overall(sums).items()}
    assert overall == pytest.approx(
        {"perception": 125, "cognition": 0, "accuracy": 3 / 6, "accuracy_plus": 1 / 3}
    )


def test_a_box_counts_if_it_overlaps_by_half() -> None:
    judge = BoxOverlap()
    wanted = Expected(["0.0 0.0 0.4 0.4"])
    sums = np.sum(
        [
            judge.judge(wanted, "[0, 0, 0.4, 0.2]"),  # half of it
            judge.judge(wanted, "0.2 0.2 0.6 0.6"),  # 0.04 of 0.28
            judge.judge(wanted, "top left"),
        ],
        axis=0,
    )
    scores = {name: float(value) for name, value in judge.scores(sums).items()}
    expected = {"accuracy": 1 / 3, "iou": (0.5 + 1 / 7) / 3, "unread": 1 / 3}
    assert scores == pytest.approx(expected)
    scaled = BoxOverlap(scale=1000).judge(wanted, "(0,0),(400,400)")
    assert list(scaled[1:3]) == [1.0, pytest.approx(1)]
    with pytest.raises(ValueError, match="Choose another metric"):
        judge.judge(Expected(["left"]), "0 0 1 1")
