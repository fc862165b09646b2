"""How answers are judged."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from lit_eve.schema.base import Finding, PositiveReal, Strict


class Measure(Strict):
    """How answers are judged."""

    needs: ClassVar[str] = "answers"
    """What of a question they are judged by."""


class ExactMatch(Measure):
    """The answer, word for word; case, spacing and a full stop at the end do not count."""

    type: Literal["exact_match"]
    articles: bool = True
    """Whether articles and punctuation count."""


class VqaAccuracy(Measure):
    """VQA's accuracy: right if three of ten people said so."""

    needs = "references"
    type: Literal["vqa_accuracy"]


class MultipleChoice(Measure):
    """One of several choices, by its letter in the answer or by the likelihood of its words."""

    needs = "choices"
    type: Literal["multiple_choice"]
    by: Literal["letter", "likelihood"] = "letter"
    """letter: the model writes it. likelihood: the choice whose words are likeliest."""
    per: Literal["answer", "token", "character"] = "answer"
    """What the likelihood is taken by: the whole answer, or its mean."""

    def findings(self) -> Iterator[Finding]:
        """`per` is for likelihoods."""
        if self.by == "letter" and self.per != "answer":
            yield Finding(
                ("per",),
                "answers by letter have no likelihood",
                "Take `per` out, or write `by: likelihood`.",
                (("by",),),
            )


class YesNo(Measure):
    """POPE's: accuracy, precision, recall and F1 of yes, and how often yes is said."""

    needs = "yes_no"
    type: Literal["yes_no"]


class MmeScore(Measure):
    """MME's: per category accuracy plus the share of pictures with both answers right, summed."""

    needs = "yes_no"
    type: Literal["mme"]


class Anls(Measure):
    """Average normalised Levenshtein similarity, of document questions."""

    type: Literal["anls"]
    threshold: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Distances from it on count as wrong."""


class CharacterErrors(Measure):
    """Character error rate: edits by characters of the reference; small is good."""

    type: Literal["cer"]
    case: bool = True
    """Whether case counts."""


class Captions(Measure):
    """BLEU-1 to BLEU-4 and CIDEr-D against all references."""

    type: Literal["captions"]


class BoxOverlap(Measure):
    """The share of boxes that overlap by enough, and the mean overlap."""

    needs = "box"
    type: Literal["box_iou"]
    least: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Overlap that counts as right."""
    scale: PositiveReal = 1.0
    """What the model's coordinates are shares of: 1, 100 or 1000."""


class Kinds(Measure):
    """Each kind of question by what it asks for, as after every training."""

    needs = "kinds"
    type: Literal["kinds"]


Metric = Annotated[
    ExactMatch
    | VqaAccuracy
    | MultipleChoice
    | YesNo
    | MmeScore
    | Anls
    | CharacterErrors
    | Captions
    | BoxOverlap
    | Kinds,
    Field(discriminator="type"),
]
"""How answers are judged."""
