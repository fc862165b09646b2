from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest

from lit_eve.schema import load
from tests.schema.problems import problems


@pytest.mark.parametrize(
    ("override", "key", "message", "suggestion"),
    [
        (
            "model.language_model.heads=5",
            "model.language_model.heads",
            "5 heads cannot share a width of 128 evenly",
            "Choose one of 1, 2, 4, 8, 16, 32, 64, 128",
        ),
        (
            "model.language_model.heads=128",
            "model.language_model.heads",
            "a head of 1 numbers cannot be rotated in pairs",
            "so that width / heads is even: 1, 2, 4, 8, 16, 32, 64.",
        ),
        (
            "model.language_model.kv_heads=3",
            "model.language_model.kv_heads",
            "4 heads cannot share 3 key-value heads evenly",
            "Choose one of 1, 2, 4.",
        ),
        (
            "model.patch_embedding.heads=7",
            "model.patch_embedding.heads",
            "7 heads cannot share a width of 128 evenly",
            "Choose one of",
        ),
        (
            "model.patch_alignment.heads=7",
            "model.patch_alignment.heads",
            "7 heads cannot share a width of 128 evenly",
            "Choose one of",
        ),
        (
            "model.patch_alignment.every=5",
            "model.patch_alignment.every",
            "every 5 layers of 4 is the last one only",
            "Choose from 1 to 4.",
        ),
        (
            "model.patch_embedding.patch=10",
            "datasets.scenes.cell",
            "16 px cannot be cut into cells of 20 px (patch x pool)",
            "Choose 20, or change model.patch_embedding.",
        ),
        (
            "model.images={size: {type: longest_edge, edge: 100}}",
            "model.images.size.edge",
            "100 px cannot be cut into cells of 16 px",
            "Choose 96 or 112",
        ),
        (
            "model.images={size: {type: area, max_side: 100}}",
            "model.images.size.max_side",
            "100 px cannot be cut into cells of 16 px",
            "Choose 96 or 112",
        ),
        (
            "model.text=null",
            "model.text",
            "has no text tokenizer of its own",
            "Add `text: {type: trained, vocabulary: 400}`",
        ),
        (
            "model.language_model={type: pretrained, from: x}",
            "model.text",
            "reads the tokens it was trained with",
            "Take `text` out.",
        ),
        (
            "model.teacher={type: random, width: 32, depth: 2, heads: 2, patch: 7, image: 32}",
            "model.teacher.image",
            "32 px cannot be cut into patches of 7 px",
            "Choose a multiple of 7.",
        ),
        (
            "model.teacher={type: random, width: 32, depth: 2, heads: 2, patch: 8, image: 32, "
            "layer: 3}",
            "model.teacher.layer",
            "there is no layer 3 among 2",
            "Choose from -3 to 2",
        ),
        (
            "datasets.scenes.sides=[32, 90]",
            "datasets.scenes.sides.1",
            "a side of 90 px is no whole number of cells of 16 px",
            "Choose 80 or 96",
        ),
        ("datasets.scenes.sides=[96, 32]", "datasets.scenes.sides", "96 is above 32", "[32, 96]"),
        (
            "datasets.scenes.digits=[4, 2]",
            "datasets.scenes.digits",
            "4 is above 2",
            "Write [2, 4].",
        ),
        (
            "datasets.scenes={sides: [16, 96], digits: [2, 4]}",
            "datasets.scenes.digits.0",
            "the smallest canvas, 16 x 16 px, holds 1 digits",
            "Ask for fewer digits, larger canvases",
        ),
        (
            "datasets.scenes.kinds={caption/digits: 1, question/raed: 1}",
            "datasets.scenes.kinds.question/raed",
            "there is no kind 'question/raed'",
            "Did you mean 'question/read'?",
        ),
        (
            "datasets.scenes.kinds={caption/digits: 0}",
            "datasets.scenes.kinds",
            "no kind of text would ever be written",
            "Give one a weight above 0.",
        ),
        (
            "stages.learn.data={scenee: 1.0}",
            "stages.learn.data.scenee",
            "there is no dataset 'scenee'",
            "Did you mean 'scenes'?",
        ),
        (
            'stages.learn.data."scenes.raed"=1.0',
            'stages.learn.data."scenes.raed"',
            "scenes has no subset 'raed'",
            "Did you mean 'read'?",
        ),
        (
            "stages.learn.from=algn",
            "stages.learn.from",
            "there is no stage 'algn'",
            "Did you mean 'align'?",
        ),
        (
            "stages.align.from=learn",
            "stages.align.from",
            "'learn' does not run before this stage",
            "There are no stages before this one here.",
        ),
        (
            "stages.learn.train.language_modle=1e-4",
            "stages.learn.train.language_modle",
            "the model has no part 'language_modle'",
            "Did you mean 'language_model'?",
        ),
        (
            "stages.align.train.teacher=1e-4",
            "stages.align.train.teacher",
            "a teacher never learns",
            "Take it out of `train:`.",
        ),
        (
            "stages.learn.train.patch_alignment=1e-4",
            "stages.learn.train.patch_alignment",
            "the task `language` has no loss that reaches this part",
            "Write `task: alignment`",
        ),
        (
            "stages.learn.train.language_model.thaw=800",
            "stages.learn.train.language_model.thaw",
            "the stage ends after 703 steps",
            "Thaw it earlier",
        ),
        (
            "stages.learn.tokens_per_row=40",
            "stages.learn.tokens_per_row",
            "a picture of 96 x 96 px is 43 tokens: a row of 40 has no room",
            "Choose at least 86",
        ),
        (
            "model.language_model.max_positions=43",
            "model.language_model.max_positions",
            "is 43 tokens: 43 positions leave no room",
            "Choose at least 86",
        ),
        (
            "model.teacher=null",
            "stages.align.task",
            "aligning needs model.teacher, which is missing",
            "or write `task: language`",
        ),
        (
            "loss.alignment=null",
            "stages.align.task",
            "aligning needs loss.alignment, which is missing",
            "Add `alignment: {weight: 1.0}` to `loss:`",
        ),
        (
            "loss.language={schedule: linear, from: 0, to: 1, over: 1k}",
            "loss.language.over",
            "a way of 1000 steps never ends in a training of 703",
            "`over: 100%`",
        ),
        (
            "loss.language={schedule: exponential, from: 0, to: 1, over: 10%}",
            "loss.language.from",
            "an exponential schedule multiplies, so 0 cannot be reached",
            "Give numbers above 0, or choose cosine or linear.",
        ),
        (
            "loss.language={schedule: linear, from: 1, to: 1, over: 10%}",
            "loss.language.to",
            "a schedule from 1 to 1 changes nothing",
            "Write the number 1 alone.",
        ),
        (
            "loss.language={schedule: linear, from: 1, to: 2, over: 0}",
            "loss.language.over",
            "a schedule over no steps has no way to go",
            "Write the number 2 alone",
        ),
        (
            "defaults.optimizer.schedule=exponential",
            "defaults.optimizer.schedule",
            "it never ends at 0",
            "Add `final: 0.01`",
        ),
        (
            "defaults.optimizer={schedule: constant, final: 0.1}",
            "defaults.optimizer.final",
            "a constant learning rate never gets to 0.1 of its peak",
            "Take `final` out",
        ),
        (
            "hardware={replicate: 2}",
            "hardware.replicate",
            "auto keeps no copies of shards",
            "Write `strategy: hsdp`",
        ),
        (
            "hardware={strategy: hsdp}",
            "hardware.strategy",
            "hsdp on one machine would have a single copy",
            "Add `replicate: 2`",
        ),
        (
            "hardware={strategy: hsdp, replicate: 3, devices: 8}",
            "hardware.replicate",
            "8 devices do not form 3 copies of at least two shards each",
            "Choose a divisor of 8 below it.",
        ),
        (
            "hardware={offload: true}",
            "hardware.offload",
            "auto shards nothing that could be kept elsewhere",
            "Write `strategy: fsdp`",
        ),
        (
            "hardware={offload: true, strategy: fsdp, accelerator: cpu}",
            "hardware.offload",
            "weights are in the host's memory already",
            "Take `offload` out.",
        ),
        (
            "tracking={type: mlflow, uri: mlruns}",
            "tracking.uri",
            "'mlruns' is no place that MLflow records in",
            "Write `sqlite:///mlflow.db`",
        ),
    ],
)
def test_what_does_not_fit_is_told_with_the_way_out(
    quickstart: Path, override: str, key: str, message: str, suggestion: str
) -> None:
    (found,) = (problem for problem in problems(quickstart, override) if problem.key == key)
    assert message in found.message
    assert suggestion in found.suggestion


def test_fp16_needs_a_device_that_has_it(quickstart: Path) -> None:
    found = problems(quickstart, "hardware={accelerator: cpu}", "stages.learn.precision=fp16")
    assert [p.message for p in found] == ["a CPU cannot train in fp16"]


def test_what_only_aligning_needs_is_not_there_for_nothing(quickstart: Path) -> None:
    found = problems(quickstart, "stages.align=null")
    assert [p.key for p in found] == ["model.patch_alignment", "model.teacher", "loss.alignment"]
    assert {p.message for p in found} == {"no stage uses this"}
    assert "`teacher: null`" in found[1].suggestion


def test_a_missing_part_of_the_alignment_is_no_part_to_train(quickstart: Path) -> None:
    found = problems(quickstart, "model.patch_alignment=null")
    assert [p.key for p in found] == ["stages.align.task", "stages.align.train.patch_alignment"]


def test_subsets_of_prepared_data_are_only_known_when_it_is_opened(sample: Path) -> None:
    if sample.stem == "large":
        assert "captions.long" in load(sample).trained["prealign"].data


SceneSubset = Literal["captions", "questions", "read", "digits"]


@pytest.mark.parametrize("subset", ["captions", "questions", "read", "digits"])
def test_subsets_are_captions_questions_and_single_kinds(
    quickstart: Path, subset: SceneSubset
) -> None:
    load(quickstart, [f'stages.learn.data={{scenes: null, "scenes.{subset}": 1.0}}'])
