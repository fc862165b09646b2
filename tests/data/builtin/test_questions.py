from __future__ import annotations

import re
from collections import Counter
from typing import Any

import pytest

from lit_eve_data.builtin.questions import WRITERS, write
from lit_eve_data.builtin.scenes import KINDS, ScenesOptions, compose, scene_random
from lit_eve_data.disk.records import IMAGE, Sample
from lit_eve_data.sources import scene_sample

NUMBER = re.compile(r"\d")


def samples(kind: str, count: int = 150) -> list[Sample]:
    options = ScenesOptions(kinds={kind: 1.0, "question/count": 1e-9})
    drawn = [scene_sample(options, "train", index)[0] for index in range(count)]
    return [sample for sample in drawn if sample.kind == kind]


def ask(sample: Sample) -> tuple[str, str, dict[str, Any]]:
    prompt, answer = (turn["content"] for turn in sample.turns)
    assert prompt.startswith(IMAGE + "\n")
    return prompt.removeprefix(IMAGE + "\n"), answer, sample.facts


def test_read_lists_the_digits_in_reading_order() -> None:
    for prompt, answer, facts in map(ask, samples("question/read")):
        assert prompt
        assert [int(digit) for digit in answer.split(" ")] == facts["digits"]


def test_count_counts() -> None:
    for _, answer, facts in map(ask, samples("question/count")):
        assert int(answer) == len(facts["boxes"])


def test_sum_adds() -> None:
    for _, answer, facts in map(ask, samples("question/sum")):
        assert int(answer) == sum(facts["digits"])


def test_colour_is_asked_of_a_digit_that_stands_once() -> None:
    for prompt, answer, facts in map(ask, samples("question/colour")):
        (digit,) = map(int, NUMBER.findall(prompt))
        assert facts["digits"].count(digit) == 1
        assert facts["colours"][facts["digits"].index(digit)] == answer


# Left and right are worked out from the boxes alone, not from the lines the writer looks at.
def test_relations_hold_between_the_boxes() -> None:
    answers = Counter[str]()
    for prompt, answer, facts in map(ask, samples("question/relation", 400)):
        one, other = map(int, NUMBER.findall(prompt))
        assert facts["digits"].count(one) == facts["digits"].count(other) == 1
        a, b = (facts["boxes"][facts["digits"].index(digit)] for digit in (one, other))
        holds = {
            "left": a[2] <= b[0],
            "right": a[0] >= b[2],
            "above": a[3] <= b[1],
            "below": a[1] >= b[3],
        }
        assert holds[answer]
        other_choice = {"left": "right", "right": "left", "above": "below", "below": "above"}
        assert not holds[other_choice[answer]]
        assert other_choice[answer] in prompt
        answers[answer] += 1
    assert min(answers[word] for word in ("left", "right", "above", "below")) > 20


def test_locate_answers_the_box_of_the_digit() -> None:
    for prompt, answer, facts in map(ask, samples("question/locate")):
        (digit,) = map(int, NUMBER.findall(prompt))
        assert facts["digits"].count(digit) == 1
        assert re.fullmatch(r"\[\d\.\d{3}(, \d\.\d{3}){3}\]", answer)
        box = facts["boxes"][facts["digits"].index(digit)]
        assert [float(side) for side in answer[1:-1].split(", ")] == pytest.approx(box, abs=6e-4)


def test_point_names_the_digit_in_the_box() -> None:
    for prompt, answer, facts in map(ask, samples("question/point")):
        sides = [float(side) for side in re.findall(r"\d\.\d{3}", prompt)]
        near = [max(abs(a - b) for a, b in zip(box, sides, strict=True)) for box in facts["boxes"]]
        assert facts["digits"][near.index(min(near))] == int(answer)
        assert min(near) < 6e-4


def test_captions_name_every_digit_once() -> None:
    for kind in ("caption/digits", "caption/colours"):
        for _, answer, facts in map(ask, samples(kind)):
            assert [int(digit) for digit in NUMBER.findall(answer)] == facts["digits"]
            assert ("and" in answer) == (len(facts["digits"]) > 1)


def test_colour_captions_give_each_digit_its_colour() -> None:
    for _, answer, facts in map(ask, samples("caption/colours")):
        pairs = re.findall(r"an? (\w+) (\d)", answer)
        assert pairs == [
            (ink, str(digit)) for ink, digit in zip(facts["colours"], facts["digits"], strict=True)
        ]


def test_layout_captions_go_line_by_line() -> None:
    for _, answer, facts in map(ask, samples("caption/layout")):
        lines: dict[int, list[str]] = {}
        for digit, line in zip(facts["digits"], facts["lines"], strict=True):
            lines.setdefault(line, []).append(str(digit))
        assert answer == "; ".join(f"line {n + 1}: {' '.join(d)}" for n, d in lines.items())


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_several_phrasings(kind: str) -> None:
    phrasings = {NUMBER.sub("", ask(sample)[0]) for sample in samples(kind)}
    assert len(phrasings) >= 2


def test_prompts_tell_the_kinds_apart() -> None:
    owner: dict[str, str] = {}
    for kind in KINDS:
        for sample in samples(kind, 60):
            text = NUMBER.sub("#", ask(sample)[0])
            assert owner.setdefault(text, kind) == kind


def test_kinds_come_as_often_as_they_weigh() -> None:
    options = ScenesOptions(kinds={"question/read": 3.0, "question/count": 1.0})
    kinds = Counter(scene_sample(options, "val", index)[0].kind for index in range(800))
    assert kinds["question/read"] / 800 == pytest.approx(0.75, abs=0.05)  # sd 0.015


def test_writers_and_kinds_are_the_same() -> None:
    assert set(WRITERS) == set(KINDS)


def test_a_scene_that_allows_no_kind_says_which_to_add() -> None:
    options = ScenesOptions(digits=(1, 1), kinds={"question/relation": 1.0})
    random = scene_random(options, "train", 0)
    with pytest.raises(ValueError, match="read, count, sum and captions"):
        write(compose(options, "train", random), options.kinds, random)
