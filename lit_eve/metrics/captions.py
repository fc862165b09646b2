"""Captions against several references: BLEU and CIDEr-D.

Words are what is between spaces and punctuation, in lower case; the published evaluation cuts them
with a Java program, whose words differ in rare cases (`'s`, hyphens).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from math import exp, log, sqrt
from typing import ClassVar

import numpy as np

from lit_eve.metrics.judging import Expected, Judge, Scores, Sums, share

LONGEST = 4
_SIGMA = 6.0
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")
NGram = tuple[str, ...]


def words_of(text: str) -> list[str]:
    """Words in lower case, without punctuation."""
    return _WORD.findall(text.lower())


def ngrams(words: Sequence[str], length: int) -> Counter[NGram]:
    """How often each run of `length` words stands in a text."""
    return Counter(tuple(words[n : n + length]) for n in range(len(words) - length + 1))


class Captions(Judge):
    """BLEU-1 to BLEU-4 of all captions together, and the mean of their CIDEr-D.

    Source:
        Papineni et al. 2002 (BLEU, without smoothing, the nearest reference length); Vedantam et
        al. 2015, arXiv:1411.5726, section 6 (CIDEr-D), times 10 as published code has it.
    """

    points: ClassVar = (
        *(f"{what}_{n}" for what in ("matched", "given") for n in range(1, LONGEST + 1)),
        *("words", "reference_words", "cider", "asked"),
    )

    def __init__(self) -> None:
        self._seen_in: Counter[NGram] = Counter()
        self._pictures = 0

    def read(self, references: Sequence[Sequence[str]]) -> None:
        """Count in how many pictures' references each run of words occurs."""
        self._seen_in.clear()
        self._pictures = len(references)
        for captions in references:
            cut = [words_of(caption) for caption in captions]
            self._seen_in.update(
                {gram for words in cut for n in range(1, LONGEST + 1) for gram in ngrams(words, n)}
            )

    def judge(self, expected: Expected, given: str) -> tuple[float, ...]:
        """What a caption adds to BLEU's counts, and its CIDEr-D."""
        words = words_of(given)
        references = [words_of(reference) for reference in expected.references]
        matched = [_matched(words, references, n) for n in range(1, LONGEST + 1)]
        runs = [max(len(words) - n, 0) for n in range(LONGEST)]
        nearest = min((abs(len(r) - len(words)), len(r)) for r in references)[1]
        return (*matched, *runs, len(words), nearest, self._cider(words, references), 1.0)

    def scores(self, sums: Sums, category: str = "") -> Scores:
        """`bleu_1` to `bleu_4` and `cider`."""
        precision = share(sums[..., :LONGEST], sums[..., LONGEST : 2 * LONGEST])
        given, wanted = sums[..., 2 * LONGEST], sums[..., 2 * LONGEST + 1]
        brevity = np.exp(np.minimum(0.0, 1 - share(wanted, given))) * (given > 0)
        with np.errstate(divide="ignore"):
            logs = np.log(precision)
        found = {
            f"bleu_{n}": brevity * np.exp(logs[..., :n].mean(-1)) for n in range(1, LONGEST + 1)
        }
        return found | {"cider": share(sums[..., -2], sums[..., -1])}

    def _cider(self, words: Sequence[str], references: Sequence[Sequence[str]]) -> float:
        mine = list(self._vectors(words))
        total = 0.0
        for reference in references:
            theirs = list(self._vectors(reference))
            gap = max(len(words) - 1, 0) - max(len(reference) - 1, 0)  # runs of two, as published
            alike = sum(map(_alike, mine, theirs)) / LONGEST
            total += alike * exp(-(gap**2) / (2 * _SIGMA**2))
        return 10 * total / len(references)

    def _vectors(self, words: Sequence[str]) -> Iterator[dict[NGram, float]]:
        """Runs of every length, weighed by how rare they are among pictures."""
        for n in range(1, LONGEST + 1):
            yield {
                gram: count * (log(max(self._pictures, 1)) - log(max(self._seen_in[gram], 1)))
                for gram, count in ngrams(words, n).items()
            }


def _matched(words: Sequence[str], references: Sequence[Sequence[str]], length: int) -> int:
    """Runs that a reference has, each at most as often as one of them has it."""
    most: Counter[NGram] = Counter()
    for reference in references:
        most |= ngrams(reference, length)
    return (ngrams(words, length) & most).total()


def _alike(mine: dict[NGram, float], theirs: dict[NGram, float]) -> float:
    """Cosine of two vectors, what exceeds the reference cut off."""
    product = sum(
        min(weight, theirs.get(gram, 0.0)) * theirs.get(gram, 0.0) for gram, weight in mine.items()
    )
    lengths = sqrt(sum(w * w for w in mine.values())) * sqrt(sum(w * w for w in theirs.values()))
    return product / lengths if lengths else 0.0
