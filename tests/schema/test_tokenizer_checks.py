"""What has to fit between the parts of an image tokenizer's experiment."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lit_eve.schema import load
from tests.schema.problems import problems

Write = Callable[..., Path]


@pytest.fixture
def tokenizer(write: Write) -> Path:
    return write(
        """
        name: tokenizer
        model:
          type: tokenizer
          encoder: {type: convolutional, width: 32, multipliers: [1, 2, 2, 2]}
          quantizer: {type: gumbel, temperature: 1.0, kl: 0.1}
          images: {size: {type: square, edge: 64}}
        datasets: {scenes: {type: scenes}}
        stages:
          learn: {task: tokenizer, data: {scenes: 1}, for: 100 steps, batch: 8,
                  train: {encoder: 1e-4, quantizer: 1e-4, decoder: 1e-4}}
        """,
        "tokenizer.yaml",
    )


@pytest.mark.parametrize(
    ("override", "key", "message", "suggestion"),
    [
        (
            "stages.learn.for=2M tokens",
            "stages.learn.for",
            "an image tokenizer reads pictures, not tokens",
            "Count samples, steps or epochs.",
        ),
        (
            "hardware={compile: true}",
            "hardware.compile",
            "an image tokenizer has no decoder blocks",
            "Take it out.",
        ),
        (
            "model={likelihood: l1, least_scale: 0.1}",
            "model.least_scale",
            "l1 has no scale that could be held up",
            "Leave it out, or take likelihood: logit_laplace.",
        ),
        (
            "model.images.size.edge=60",
            "model.images.size.edge",
            "60 px cannot be cut into cells of 8 px (the encoder's stride)",
            "Choose 56 or 64, or change model.encoder.",
        ),
        (
            "model.images.size={type: crop, edge: 60}",
            "model.images.size.edge",
            "60 px cannot be cut into cells of 8 px",
            "Choose 56 or 64, or change model.encoder.",
        ),
        (
            "model.images.size={type: crop, edge: 64, zoom: [1.5, 1.125]}",
            "model.images.size.zoom",
            "1.5 to 1.125 is no range",
            "Write the smaller first: [1.125, 1.5].",
        ),
        (
            "model.encoder.attention=[4]",
            "model.encoder.attention.0",
            "there is no level 4 among 4",
            "Choose from 0 (finest) to 3.",
        ),
        (
            "model.quantizer.temperature={schedule: cosine, from: 1, to: 0, over: 50%}",
            "model.quantizer.temperature.to",
            "a relaxation of temperature 0 has no gradient",
            "the paper ends at 0.0625",
        ),
        (
            "model.quantizer={kl: {schedule: linear, from: 0, to: 1, over: 150k}}",
            "model.quantizer.kl.over",
            "a way of 150000 steps never ends in a training of 100",
            "Give a share",
        ),
        (
            "model.quantizer={type: residual, quantizer: {type: fsq, standardize: true}}",
            "model.quantizer.quantizer.standardize",
            "do not add up to the latent",
            "use fsq alone",
        ),
        (
            "model.quantizer={type: multi_scale, scales: [[1, 1], [4, 4], [2, 8]]}",
            "model.quantizer.scales.2",
            "[2, 8] after [4, 4] is no way from coarse to fine",
            "Let rows and columns grow",
        ),
        (
            "model.discriminator={}",
            "model.discriminator",
            "no stage trains it, so it would judge at random",
            "Add `discriminator: 1e-4` to `train:`",
        ),
        (
            "stages.learn.train.language_model=1e-4",
            "stages.learn.train.language_model",
            "the model has no part 'language_model'",
            "Parts here: encoder, quantizer, decoder.",
        ),
        (
            "loss={language: 1.0}",
            "loss",
            "unknown key",
            "Keys here: name, question, seed, model, datasets, stages",
        ),
    ],
)
def test_what_does_not_fit_a_tokenizer_is_told_with_the_way_out(
    tokenizer: Path, override: str, key: str, message: str, suggestion: str
) -> None:
    (found,) = (problem for problem in problems(tokenizer, override) if problem.key == key)
    assert message in found.message
    assert suggestion in found.suggestion


def test_a_default_that_does_not_fit_is_named_in_full(tokenizer: Path) -> None:
    tokenizer.write_text(tokenizer.read_text().replace(", temperature: 1.0, kl: 0.1", ""))
    keys = [problem.key for problem in problems(tokenizer)]
    assert keys == ["model.quantizer.temperature.over", "model.quantizer.kl.over"]


def test_pictures_that_are_cropped_may_have_any_size(tokenizer: Path) -> None:
    odd = "datasets.scenes={type: scenes, cell: 12, sides: [24, 48]}"
    load(tokenizer, [odd, "model.images.size={type: crop, edge: 16}"])
    assert problems(tokenizer, odd, "model.images.size={type: native}")
