"""Stages that train nothing: `do: copy` and `do: load`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lit_eve.schema import ExperimentErrors, VisionLanguageExperiment, load

Write = Callable[..., Path]

DIVIDED = """\
name: divided
model:
  type: encoder_free
  language_model: {type: llama, width: 64, depth: 2, heads: 4, divide: full}
  text: {type: bytes}
  patch_embedding: {type: eve_v2, patch: 8, pool: 2, width: 64}
datasets: {scenes: {type: scenes}}
defaults: {task: language, batch: 8, data: {scenes: 1}, for: 10 steps}
stages:
  start: {do: load, weights: "${oc.env:WEIGHTS}/model.safetensors"}
  embed: {from: start, train: {patch_embedding: 1e-4}}
  copy: {do: copy}
  vision: {train: {patch_embedding: 1e-4, "language_model.*.vision": 1e-4}}
"""


@pytest.fixture
def divided(write: Write) -> Path:
    return write(DIVIDED)


def test_a_transform_takes_no_defaults_and_hands_its_weights_on(
    divided: Path, write: Write
) -> None:
    experiment = load(divided)
    assert isinstance(experiment, VisionLanguageExperiment)
    assert list(experiment.stages) == ["start", "embed", "copy", "vision"]
    assert list(experiment.trained) == ["embed", "vision"]
    sources = [experiment.source_of(name) for name in experiment.stages]
    assert sources == [None, "start", "embed", "copy"]
    assert load(write(experiment.to_yaml(), "again.yaml")) == experiment


def test_a_tiny_experiment_starts_without_weights_from_elsewhere(divided: Path) -> None:
    small = load(divided, tiny=True)
    assert list(small.stages) == ["embed", "copy", "vision"]
    assert small.stages["embed"].previous is None
    assert set(small.trained["vision"].train) == {"patch_embedding", "language_model.*.vision"}


@pytest.mark.parametrize(
    ("override", "key", "advice"),
    [
        ("stages.copy.do=cpoy", "stages.copy.do", "Did you mean 'copy'"),
        ("stages.copy.batch=3", "stages.copy.batch", "Keys here: do, weights, from"),
        ("model.language_model.divide=null", "stages.copy.do", "Add `divide: full`"),
        ("stages.copy.weights=x", "stages.copy.weights", "Take it out"),
        ("stages.start.weights=null", "stages.start.do", "Add `weights: FILE`"),
        ("stages.vision.from=copi", "stages.vision.from", "Did you mean 'copy'"),
        ("stages.copy.do=load", "stages.copy.do", "Add `weights: FILE`"),
    ],
)
def test_what_a_transform_cannot_do_is_said(
    divided: Path, override: str, key: str, advice: str
) -> None:
    with pytest.raises(ExperimentErrors) as caught:
        load(divided, [override])
    (problem,) = caught.value.problems
    assert problem.key == key
    assert advice in problem.suggestion


def test_loading_names_no_stage_since_all_weights_are_replaced(divided: Path) -> None:
    with pytest.raises(ExperimentErrors, match="all weights come from the file"):
        load(divided, ["stages.copy={do: load, weights: x, from: embed}"])


def test_sizes_of_a_stage_are_whole_cells_too(divided: Path) -> None:
    size = "stages.vision.size={type: longest_edge, edge: 50, rounding: up, multiple: 24}"
    with pytest.raises(ExperimentErrors) as caught:
        load(divided, [size])
    assert [(problem.key, problem.message) for problem in caught.value.problems] == [
        ("stages.vision.size.edge", "50 px is no multiple of 24"),
        ("stages.vision.size.multiple", "24 px cannot be cut into cells of 16 px (patch x pool)"),
    ]
