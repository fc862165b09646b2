"""Every kind of text about scenes is scored, on its own and as it should be."""

from __future__ import annotations

from lit_eve.evaluation.examine import Answered, scores
from lit_eve_data.builtin.questions import facts, write
from lit_eve_data.builtin.scenes import KINDS, ScenesOptions, compose, scene_random
from lit_eve_data.disk.records import Sample

NAMES = {
    *("read", "count", "colour", "relation", "sum", "locate", "locate_iou", "point"),
    *("caption_digits", "caption_colours", "caption_layout", "all"),
}


def held_out() -> list[Sample]:
    """Two samples of every kind, written about scenes of three digits."""
    options, samples, index = ScenesOptions(sides=(64, 64), digits=(3, 3), seed=5), [], 0
    for kind in KINDS * 2:
        written = ""
        while written != kind:  # a scene without a unique digit allows fewer kinds
            random = scene_random(options, "test", index)
            scene = compose(options, "test", random)
            written, turns = write(scene, {kind: 1.0, "question/read": 1e-9}, random)
            index += 1
        samples.append(Sample(str(index), kind, turns, [], facts(scene)))
    return samples


def test_every_kind_has_a_score_and_right_answers_have_the_full_one() -> None:
    answers = [Answered(sample, sample.turns[-1]["content"]) for sample in held_out()]
    assert scores(answers) == dict.fromkeys(NAMES, 1.0)


def test_every_kind_notices_wrong_answers() -> None:
    result = scores([Answered(sample, "no idea") for sample in held_out()])
    assert result == dict.fromkeys(NAMES, 0.0)
