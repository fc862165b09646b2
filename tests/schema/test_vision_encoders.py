"""What a baseline's vision encoder may say, and what has to fit behind it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lit_eve.schema import VisionLanguageExperiment, load
from lit_eve.schema.models import EncoderModel
from tests.schema.conftest import FLORENCE
from tests.schema.problems import problems

Write = Callable[..., Path]
SMALL = (
    "model.vision_encoder={type: florence2, width: 24, depth: 2, heads: 4, patch: 16, image: 64, "
    "prompts: [<OCR>, Where it is], layers: [0, 1, -1]}"
)


def encoder_model(file: Path, *overrides: str) -> EncoderModel:
    experiment = load(file, overrides)
    assert isinstance(experiment, VisionLanguageExperiment)
    assert isinstance(experiment.model, EncoderModel)
    return experiment.model


def test_a_task_of_florence_2_stands_for_the_words_it_was_learnt_by(write: Write) -> None:
    seen = encoder_model(write(FLORENCE)).vision_encoder
    assert seen.type == "pretrained"
    assert seen.prompts == (
        "Describe in detail what is shown in the image.",
        "What is the text in the image?",
        "Where it is",
    )
    assert seen.num_states == 4  # what the tower sees, and the last layer under three prompts


@pytest.mark.parametrize(("merge", "tokens"), [("channel", 16), ("token", 5 * 16), ("mean", 16)])
def test_prompts_and_layers_are_counted_as_tokens(write: Write, merge: str, tokens: int) -> None:
    model = encoder_model(write(FLORENCE), SMALL, f"model.connector.merge={merge}")
    assert (model.cell, model.visual_tokens(4, 4)) == (16, tokens)


@pytest.mark.parametrize(
    ("override", "key", "message", "suggestion"),
    [
        ("prompts=[<OCRR>]", "prompts", "has no task <OCRR>", "Did you mean '<OCR>'?"),
        ("prompts=[<REGION_TO_OCR>]", "prompts", "needs no words of its own", "Any other text is"),
        ("prompts=[Hm, Hm]", "prompts.1", "'Hm' is read already", "Take one of them out."),
        ("layers=[0]", "prompts", "they would be ignored", "Add -1 to `layers`"),
        ("prompts=[]", "prompts", "", ""),
    ],
)
def test_prompts_that_cannot_be_meant_are_refused(
    write: Write, override: str, key: str, message: str, suggestion: str
) -> None:
    found = problems(write(FLORENCE), f"model.vision_encoder.{override}")
    one = next(problem for problem in found if key in problem.key)
    assert message in one.message
    assert suggestion in one.suggestion


@pytest.mark.parametrize(
    ("override", "key", "message", "suggestion"),
    [
        ("patch=12", "patch", "no tower makes cells of 12 px", "Choose 4, 8, 16 or 32."),
        ("patch=2", "patch", "no tower makes cells of 2 px", "Choose 4, 8, 16 or 32."),
        ("width=18", "width", "18 cannot be halved for 2 stages", "Choose a multiple of 4."),
        ("heads=5", "heads", "5 heads cannot share a width of 24", "Choose one of"),
        ("image=40", "image", "cannot be cut into patches of 16 px", "Choose a multiple of 16."),
        ("layers=[3, 0]", "layers.0", "no layer 3 among 2", "0 is what the tower sees"),
        ("layers=[-3]", "prompts", "they would be ignored", "Add -1 to `layers`"),
    ],
)
def test_a_small_florence_2_has_to_fit_together(
    write: Write, override: str, key: str, message: str, suggestion: str
) -> None:
    found = problems(write(FLORENCE), SMALL, f"model.vision_encoder.{override}")
    one = next(problem for problem in found if problem.key.endswith(key))
    assert message in one.message
    assert suggestion in one.suggestion


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("model.connector={type: mlp}",), "mlp reads one set of features of 4"),
        (
            ("model.vision_encoder.layers=[-1]", "model.vision_encoder.prompts=[<OCR>]"),
            "depth_breadth joins several layers or prompts, and there is one",
        ),
    ],
)
def test_a_connector_joins_several_sets_or_reads_one(
    write: Write, overrides: tuple[str, ...], message: str
) -> None:
    (found,) = problems(write(FLORENCE), *overrides)
    assert message in found.message


def test_prompts_for_a_vit_are_an_unknown_key(write: Write) -> None:
    seen = "{type: vit, width: 8, depth: 1, heads: 1, patch: 8, image: 8, prompts: [Hm]}"
    found = problems(write(FLORENCE), f"model.vision_encoder={seen}")
    assert any("prompts" in problem.key and "unknown" in problem.message for problem in found)
