"""Answers in words against values worked by hand and plain re-statements of the published rules."""

from __future__ import annotations

import random
from functools import cache

import numpy as np
import pytest

from lit_eve.metrics.answers import AnswerScores
from lit_eve.metrics.judging import Expected, Judge
from lit_eve.metrics.words import (
    Anls,
    CharacterErrors,
    ExactMatch,
    Kinds,
    VqaAccuracy,
    edits,
    vqa_words,
)


def scored(judge: Judge, *answers: tuple[list[str], str]) -> dict[str, float]:
    sums = np.array([judge.judge(Expected(wanted), given) for wanted, given in answers]).sum(0)
    return {name: float(value) for name, value in judge.scores(sums).items()}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("The Dogs!", "dogs"),
        ("two", "2"),
        ("None", "0"),
        ("dont", "don't"),
        ("wouldnt've", "would'nt've"),
        ("1,000", "1000"),
        ("a, b", "a b"),
        ("hot-dog", "hot dog"),
        ("u.s.", "us"),
    ],
)
def test_vqa_takes_these_for_the_same(one: str, other: str) -> None:
    assert vqa_words(one) == vqa_words(other)


@pytest.mark.parametrize(
    ("one", "other"), [("its", "it's"), ("3.5", "35"), ("dog", "dogs"), ("lets", "let's")]
)
def test_vqa_keeps_these_apart(one: str, other: str) -> None:
    assert vqa_words(one) != vqa_words(other)


# Of ten people p say red. Leaving one of them out (p times) p - 1 agree, leaving another out p do.
@pytest.mark.parametrize(
    ("people", "accuracy"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)]
)
def test_vqa_accuracy_counts_three_of_nine(people: int, accuracy: float) -> None:
    said = ["Red."] * people + [f"word{n}" for n in range(10 - people)]
    assert scored(VqaAccuracy(), (said, "red"))["accuracy"] == pytest.approx(accuracy)


def test_exact_match_minds_articles_only_when_told() -> None:
    asked = (["a cat"], "Cat."), (["dog", "hound"], "Hound"), (["7"], "seven")
    assert scored(ExactMatch(), *asked) == {"accuracy": pytest.approx(1 / 3)}
    assert scored(ExactMatch(articles=False), *asked) == {"accuracy": 1.0}


def by_recursion(one: str, other: str) -> int:
    @cache
    def distance(i: int, j: int) -> int:
        if not i or not j:
            return i + j
        change = one[i - 1] != other[j - 1]
        return min(distance(i - 1, j) + 1, distance(i, j - 1) + 1, distance(i - 1, j - 1) + change)

    return distance(len(one), len(other))


def test_edits_are_those_of_the_recursion() -> None:
    chance = random.Random(0)
    for _ in range(60):
        one, other = ("".join(chance.choices("abc", k=chance.randint(0, 7))) for _ in range(2))
        assert edits(one, other) == by_recursion(one, other)


def test_anls_forgives_small_slips_and_nothing_else() -> None:
    # kitten/sitting: 3 of 7 edits; abcd/wxyz: all.
    asked = (["sitting"], " Kitten "), (["abcd"], "wxyz"), (["no", "yes"], "Yes"), (["ab"], "ax")
    assert scored(Anls(), *asked)["anls"] == pytest.approx((4 / 7 + 0 + 1 + 0) / 4)
    assert scored(Anls(threshold=0.6), *asked)["anls"] == pytest.approx((4 / 7 + 0 + 1 + 0.5) / 4)
    assert scored(Anls(), ([""], ""))["anls"] == 1


def test_character_errors_are_over_all_characters() -> None:
    asked = (["sitting"], "kitten"), (["Abc", "xyz"], "abc")
    assert scored(CharacterErrors(), *asked)["cer"] == pytest.approx(4 / 10)
    assert scored(CharacterErrors(case=False), *asked)["cer"] == pytest.approx(3 / 10)


def test_kinds_are_scored_as_after_a_training() -> None:
    asked = [
        ("question/read", "4", "4", {}),
        ("question/read", "4", "5", {}),
        ("caption/digits", "A 4 and a 5.", "4 and 6", {"digits": [4, 5]}),
        ("question/locate", "0.1 0.1 0.5 0.5", "0.1 0.1 0.5 0.6", {}),
    ]
    metric, judge = AnswerScores(), Kinds()
    sums: dict[str, np.ndarray] = {}
    for kind, wanted, given, facts in asked:
        metric.update(kind, wanted, given, facts)
        points = np.array(judge.judge(Expected([wanted], kind=kind, facts=facts), given))
        sums[kind] = sums.get(kind, 0) + points
    theirs = {name: float(value) for name, value in metric.compute().items()}
    mine = {kind: judge.scores(total, kind) for kind, total in sums.items()}
    assert mine["question/read"]["right"] == theirs["read"]
    assert mine["caption/digits"]["f1"] == pytest.approx(theirs["caption_digits"])
    assert mine["question/locate"]["iou"] == pytest.approx(theirs["locate_iou"])
    assert judge.overall(sums)["right"] == pytest.approx(theirs["all"])
