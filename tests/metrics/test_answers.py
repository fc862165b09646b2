"""Scores of answers, worked by hand."""

from __future__ import annotations

import pytest
from hypothesis import given as for_all
from hypothesis import strategies

from lit_eve.metrics.answers import AnswerScores, Box, answer_box, is_right, named, overlap

Answer = tuple[str, str, str]


def scores(*answers: Answer) -> dict[str, float]:
    metric = AnswerScores()
    for answer in answers:
        metric.update(*answer)
    return {name: value.item() for name, value in metric.compute().items()}


def test_an_exact_match_forgives_case_spacing_and_a_full_stop() -> None:
    assert scores(
        ("question/read", "3 5", " 3  5 .\n"),
        ("question/read", "3 5", "3 5 1"),
        ("question/read", "3 5", ""),
        ("question/colour", "red", "Red."),
    ) == pytest.approx({"read": 1 / 3, "colour": 1, "all": 2 / 4})


def test_a_kind_nobody_asked_is_not_reported() -> None:
    metric = AnswerScores(["question/read", "question/sum"])
    metric.update("question/sum", "1", "1")
    assert {name: value.item() for name, value in metric.compute().items()} == {"sum": 1, "all": 1}


def test_a_caption_names_digits_and_colours() -> None:
    assert named("a red 3, a Blue 3 and a green 15") == {
        "red": 1, "blue": 1, "green": 1, "3": 2, "1": 1, "5": 1,
    }  # fmt: skip


def test_a_caption_is_scored_by_what_it_names_each_as_often_as_it_does() -> None:
    # Shared 3, 3 and 5, then nothing; named 3 + 4, then 1 + 0: F1 = 2 * 3 / 8.
    assert scores(
        ("caption/digits", "the digits 3, 3 and 5", "the digits 3, 3, 5 and 7"),
        ("caption/digits", "the digits 1", "nothing"),
    ) == pytest.approx({"caption_digits": 6 / 8, "all": 0})


def test_the_number_of_a_line_is_not_a_digit_of_the_scene() -> None:
    assert named("line 1: 3 5; line 2: 7") == {"3": 1, "5": 1, "7": 1}


def test_facts_say_what_a_caption_should_name_however_it_is_worded() -> None:
    expected, given = "2 digits, both red: three and five", "red 3, red 5"
    facts = {"digits": [3, 5]}
    assert not is_right("caption/free", expected, given)
    assert not is_right("caption/free", expected, given, facts)  # red once
    assert is_right("caption/free", expected, "red: 5 3", facts)


def test_captions_with_nothing_to_name_are_right_when_they_name_nothing() -> None:
    assert scores(("caption/free", "an empty page", "a page")) == {"caption_free": 1, "all": 1}


# Two squares of side 0.2 shifted by half a side: 0.02 shared of 0.06.
def test_overlap_is_the_shared_area_over_the_joint_one() -> None:
    one, other = Box(0.1, 0.1, 0.3, 0.3), Box(0.2, 0.1, 0.4, 0.3)
    assert overlap(one, other) == pytest.approx(1 / 3)
    assert overlap(one, one) == pytest.approx(1)
    assert overlap(one, Box(0.5, 0.5, 0.6, 0.6)) == 0


def test_a_text_that_is_no_box_overlaps_with_nothing() -> None:
    expected = "[0.100, 0.100, 0.300, 0.300]"
    answers = (expected, "[0.2, 0.1, 0.4, 0.3]", "somewhere", "[0.3, 0.1, 0.1, 0.3]")
    assert scores(*(("question/locate", expected, answer) for answer in answers)) == pytest.approx(
        {"locate": 1 / 4, "locate_iou": (1 + 1 / 3) / 4, "all": 1 / 4}
    )


@pytest.mark.parametrize(
    "text", ["", "1 2 3", "1 2 3 4 5", "[0.5, 0.1, 0.5, 0.2]", "9" * 999 + " 0 1 1"]
)
def test_what_is_not_four_ordered_numbers_is_no_box(text: str) -> None:
    assert answer_box(text) is None


def test_an_expected_text_that_is_no_box_is_refused() -> None:
    with pytest.raises(ValueError, match="give it a kind that is read as words"):
        AnswerScores().update("question/locate", "left", "left")


def test_scores_start_afresh_after_a_reset() -> None:
    metric = AnswerScores()
    metric.update("question/read", "1", "2")
    metric.reset()
    metric.update("question/read", "1", "1")
    assert metric.compute()["read"].item() == 1


KINDS = ["question/read", "caption/digits", "question/locate", "describe"]


@for_all(strategies.sampled_from(KINDS), strategies.text())
def test_no_answer_a_model_could_give_breaks_the_scores(kind: str, given: str) -> None:
    report = scores((kind, "[0.1, 0.1, 0.2, 0.2]", given))
    assert all(0 <= value <= 1 for value in report.values())
