"""Answers in words: exactly right, as people say, nearly as written."""

from __future__ import annotations

import re
from typing import ClassVar

from torchmetrics.functional.text import edit_distance

from lit_eve.metrics.answers import normalised, points
from lit_eve.metrics.judging import Expected, Judge, Scores, Sums, share

_NUMBERS = ("none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_DIGITS = {word: str(number) for number, word in enumerate(_NUMBERS)} | {"zero": "0"}
_ARTICLES = frozenset({"a", "an", "the"})
_MARKS = ';/[]"{}()=+\\_-><@`,?!'
_PERIOD = re.compile(r"\.(?!\d)")
_COMMA_IN_NUMBER = re.compile(r"\d,\d")
_CONTRACTED = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't
haven't he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've
might've mustn't must've needn't not've o'clock oughtn't ow's'at shan't she'd've she's should've
shouldn't shouldn't've somebody'd somebody'd've somebody'll somebody's someone'd someone'd've
someone'll someone's something'd something'd've something'll that's there'd there'd've there're
there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're
what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're
why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're
you've
"""
_BARE = frozenset(_CONTRACTED.replace("'", "").split())


def vqa_words(text: str) -> str:
    """An answer as VQA's evaluation compares it.

    Punctuation, articles and case are taken away, numbers up to ten become digits, contractions
    lose their apostrophe (there they gain it: what is equal is the same).

    Source:
        The evaluation code of VQA (Antol et al. 2015, arXiv:1505.00468, section 3), applied to
        answer and references alike as its challenge server does.
    """
    text = text.replace("\n", " ").replace("\t", " ").strip()
    plain, in_number = text, _COMMA_IN_NUMBER.search(text) is not None
    for mark in _MARKS:
        at_edge = f"{mark} " in text or f" {mark}" in text
        plain = plain.replace(mark, "" if at_edge or in_number else " ")
    words = [_DIGITS.get(word, word) for word in _PERIOD.sub("", plain).lower().split()]
    kept = [word for word in words if word not in _ARTICLES]
    return " ".join(b if (b := word.replace("'", "")) in _BARE else word for word in kept)


class ExactMatch(Judge):
    """The share of answers that are one of the references.

    Args:
        articles: whether articles and punctuation count.
    """

    points: ClassVar = ("asked", "right")

    def __init__(self, articles: bool = True) -> None:
        self._plain = normalised if articles else vqa_words

    def judge(self, expected: Expected, given: str) -> tuple[float, ...]:
        """1 if it is a reference."""
        return 1.0, float(self._plain(given) in map(self._plain, expected.references))

    def scores(self, sums: Sums, category: str = "") -> Scores:
        """`accuracy`."""
        return {"accuracy": share(sums[..., 1], sums[..., 0])}


class VqaAccuracy(ExactMatch):
    """VQA's accuracy: a third of a point for everyone of nine others who said so, at most one."""

    def judge(self, expected: Expected, given: str) -> tuple[float, ...]:
        """Mean over the people, each left out in turn."""
        said = [vqa_words(reference) for reference in expected.references]
        answer = vqa_words(given)
        agreeing = said.count(answer)
        left_out = [min(1.0, (agreeing - (one == answer)) / 3) for one in said]
        return 1.0, sum(left_out) / len(left_out)


class Anls(Judge):
    """Average normalised Levenshtein similarity.

    Args:
        threshold: a normalised distance from which on an answer is worth nothing.

    Source:
        Biten et al. 2019, arXiv:1905.13648, section 3.3.
    """

    points: ClassVar = ("asked", "similarity")

    def __init__(self, threshold: float = 0.5) -> None:
        self.threshold = threshold

    def judge(self, expected: Expected, given: str) -> tuple[float, ...]:
        """Of the most similar reference; case and outer space do not count."""
        said, best = " ".join(given.lower().split()), 0.0
        for reference in expected.references:
            wanted = " ".join(reference.lower().split())
            distance = edits(said, wanted) / max(len(said), len(wanted), 1)
            best = max(best, 1 - distance if distance < self.threshold else 0.0)
        return 1.0, best

    def scores(self, sums: Sums, category: str = "") -> Scores:
        """`anls`."""
        return {"anls": share(sums[..., 1], sums[..., 0])}


class CharacterErrors(Judge):
    """Character error rate of all answers together, against the nearest reference each.

    Args:
        case: whether case counts.
    """

    points: ClassVar = ("edits", "characters")
    small_is_good: ClassVar = True

    def __init__(self, case: bool = True) -> None:
        self.case = case

    def judge(self, expected: Expected, given: str) -> tuple[float, ...]:
        """Edits and characters of the reference with the fewest errors a character."""
        fold = str if self.case else str.casefold
        pairs = [
            (edits(fold(given), fold(reference)), len(reference))
            for reference in expected.references
        ]
        errors, length = min(pairs, key=lambda pair: pair[0] / max(pair[1], 1))
        return float(errors), float(length)

    def scores(self, sums: Sums, category: str = "") -> Scores:
        """`cer`."""
        return {"cer": share(sums[..., 0], sums[..., 1])}


class Kinds(Judge):
    """Each kind of question by what it asks for; see `lit_eve.metrics.answers.points`."""

    points: ClassVar = ("asked", "right", "shared", "mentioned", "overlap")

    def judge(self, expected: Expected, given: str) -> tuple[float, ...]:
        """Its points, by its kind."""
        facts = expected.facts
        return 1.0, *map(float, points(expected.kind, expected.references[0], given, facts))

    def scores(self, sums: Sums, category: str = "") -> Scores:
        """`right`; of captions `f1`, of boxes `iou`."""
        asked, right, shared, mentioned, overlap = one_by_one(sums)
        scores: Scores = {"right": share(right, asked)}
        if category.startswith("caption/"):
            scores["f1"] = share(2 * shared, mentioned)
        if category == "question/locate":
            scores["iou"] = share(overlap, asked)
        return scores


def one_by_one(sums: Sums) -> tuple[Sums, ...]:
    """The points one by one, (...) each."""
    return tuple(sums[..., place] for place in range(sums.shape[-1]))


def edits(one: str, other: str) -> int:
    """Levenshtein distance."""
    if one == other:
        return 0
    return int(edit_distance([one], [other], reduction="sum"))
