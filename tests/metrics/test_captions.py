"""BLEU against torchmetrics, CIDEr-D against a plain re-statement and the published program."""

from __future__ import annotations

import math
import random
from collections import Counter

import numpy as np
import pytest
from torchmetrics.functional.text import bleu_score

from lit_eve.metrics.captions import Captions, words_of
from lit_eve.metrics.judging import Expected

REFERENCES = [
    ["A red dog sits on the mat.", "the dog is on a red mat"],
    ["Two boys run!", "boys are running fast"],
]
GIVEN = ["a dog sits on the red mat", "two boys are running"]


def scored(references: list[list[str]], given: list[str]) -> dict[str, float]:
    judge = Captions()
    judge.read(references)
    pairs = zip(references, given, strict=True)
    sums = np.sum([judge.judge(Expected(wanted), answer) for wanted, answer in pairs], axis=0)
    return {name: float(value) for name, value in judge.scores(sums).items()}


def some(seed: int) -> tuple[list[list[str]], list[str]]:
    chance = random.Random(seed)
    words = ["a", "the", "red", "dog", "cat", "sits", "on", "mat", "blue", "ball", "runs", "fast"]

    def sentence(least: int, most: int) -> str:
        return " ".join(chance.choices(words, k=chance.randint(least, most)))

    references = [[sentence(4, 9) for _ in range(3)] for _ in range(8)]
    return references, [sentence(3, 10) for _ in range(6)] + [references[6][0], "mat"]


def test_words_have_no_case_and_no_punctuation() -> None:
    assert words_of("The dog's ball, 2 cats -- a well-known café!") == [
        *("the", "dog's", "ball", "2", "cats", "a", "well", "known", "café")
    ]


@pytest.mark.parametrize("seed", [0, 1])
def test_bleu_is_that_of_torchmetrics(seed: int) -> None:
    references, given = some(seed)
    mine = scored(references, given)
    for n in range(1, 5):
        theirs = float(bleu_score(given, references, n_gram=n))
        assert mine[f"bleu_{n}"] == pytest.approx(theirs, abs=1e-6)


def runs(text: str, n: int) -> list[tuple[str, ...]]:
    words = text.split()
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


def alike(references: list[list[str]], answer: str, reference: str, n: int) -> float:
    """Over a dense vocabulary of runs of n words, in float64."""
    holding = [{gram for text in texts for gram in runs(text, n)} for texts in references]
    vocabulary = sorted(set(runs(answer, n)).union(*holding))
    seen = [sum(gram in grams for grams in holding) for gram in vocabulary]
    rare = np.array([math.log(len(references) / max(1, times)) for times in seen])
    one, other = Counter(runs(answer, n)), Counter(runs(reference, n))
    mine = np.array([one[gram] for gram in vocabulary]) * rare
    theirs = np.array([other[gram] for gram in vocabulary]) * rare
    lengths = np.linalg.norm(mine) * np.linalg.norm(theirs)
    return float(np.minimum(mine, theirs) @ theirs / lengths) if lengths else 0.0


def cider_with_loops(references: list[list[str]], given: list[str]) -> float:
    total = 0.0
    for wanted, answer in zip(references, given, strict=True):
        for reference in wanted:
            score = sum(alike(references, answer, reference, n) for n in range(1, 5)) / 4
            gap = len(runs(answer, 2)) - len(runs(reference, 2))
            total += 10 * score * math.exp(-(gap**2) / 72) / len(wanted)
    return total / len(given)


def test_cider_is_that_of_plain_loops() -> None:
    references, given = some(0)
    assert scored(references, given)["cider"] == pytest.approx(cider_with_loops(references, given))


# pycocoevalcap 1.2, Cider().compute_score and Bleu(4).compute_score, on these words.
def test_scores_are_those_of_the_published_program() -> None:
    found = scored(REFERENCES, GIVEN)
    assert found["cider"] == pytest.approx(3.7890503151618837, abs=1e-12)
    assert [found[f"bleu_{n}"] for n in range(1, 5)] == pytest.approx(
        [0.999999999818182, 0.8819171035189403, 0.6933612742078938, 0.5081327480392036], abs=1e-8
    )


def test_an_empty_caption_scores_nothing() -> None:
    assert set(scored(REFERENCES, ["", ""]).values()) == {0.0}
