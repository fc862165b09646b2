"""A finished run at work: held-out scores, and answers to anybody's questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image, UnidentifiedImageError
from rich.console import Console
from rich.table import Table
from torch import nn

from lit_eve.checkpoints import newest, read_weights
from lit_eve.evaluation.examine import question, reply
from lit_eve.models.generation import Sampling
from lit_eve.models.tokenizers.image_tokenizer import ImageTokenizer
from lit_eve.models.vision_language import VisionLanguageModel
from lit_eve.running.directory import RunDirectory
from lit_eve.running.kinds import Kind, Tokenizer, VisionLanguage, kind_of
from lit_eve.running.run import quiet
from lit_eve.running.trainer import limit_threads
from lit_eve.running.weights import load_weights
from lit_eve.schema import TokenizerExperiment, load


def open_run(
    directory: RunDirectory, stage: str | None, data: Path, console: Console
) -> tuple[Kind[Any, Any], str, nn.Module]:
    """A run's model with the weights of a stage, ready for use.

    Args:
        directory: the run.
        stage: whose weights; None: the last stage that has any, finished or not.
        data: root of prepared datasets.
        console: what the user sees.

    Raises:
        ValueError: if the run has no weights, or not of that stage.
    """
    experiment = load(directory.experiment_file)
    quiet()
    limit_threads(experiment.hardware)
    name, file = _weights(directory, list(experiment.stages), stage)
    kind = kind_of(experiment).prepare(experiment, directory, data, console)
    return kind, name, _loaded(kind, name, file)


def open_tokenizer(directory: RunDirectory, stage: str | None = None) -> ImageTokenizer:
    """A tokenizer's model with the weights of a stage; its data is not touched.

    Args:
        directory: the run.
        stage: whose weights; None: the last stage that has any, finished or not.

    Raises:
        ValueError: if the run is of another kind, or has no weights.
    """
    experiment = load(directory.experiment_file)
    if not isinstance(experiment, TokenizerExperiment):
        raise ValueError(
            f"{experiment.name} is of type {experiment.model.type}: only image tokenizers turn "
            "pictures into codes. Name a run of one."
        )
    limit_threads(experiment.hardware)
    name, file = _weights(directory, list(experiment.stages), stage)
    kind = Tokenizer(experiment, directory, {}, Console(quiet=True))
    model: ImageTokenizer = _loaded(kind, name, file)
    return model


def _loaded(kind: Kind[Any, Any], name: str, file: Path) -> Any:
    """The model with weights from a file of a stage, on the device there is."""
    model = kind.model(weights=False)
    final = file == kind.directory.weights(name)
    load_weights(model, read_weights(file) if final else kind.final_weights(file), file)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return model.to(device).eval()


def _weights(directory: RunDirectory, stages: Sequence[str], stage: str | None) -> tuple[str, Path]:
    """The stage and the file its weights are in: final ones, or the newest checkpoint."""
    if stage is not None and stage not in stages:
        raise ValueError(f"the run has no stage {stage!r}. Stages: {', '.join(stages)}.")
    for name in [stage] if stage else reversed(stages):
        final = directory.weights(name)
        found = final if final.is_file() else newest(directory.checkpoints(name))
        if found is not None:
            return name, found
    wanted = f" of stage {stage}" if stage else ""
    raise ValueError(
        f"{directory.path} has no weights{wanted} yet, so nothing can answer. Wait for its first "
        "checkpoint, or resume it."
    )


def evaluate_run(
    directory: RunDirectory,
    stage: str | None,
    questions: int | None,
    data: Path,
    console: Console,
) -> dict[str, float]:
    """Scores of a run's model on held-out questions; kept in the run as `evaluation.json`."""
    kind, name, model = open_run(directory, stage, data, console)
    result = kind.examine(name, model, questions)
    table = Table("score", name, title=kind.scores_title, title_justify="left")
    for score, value in result.items():
        table.add_row(score, kind.written(score, value))
    console.print(table)
    directory.write_json(f"{name}/evaluation.json", {"questions": questions, "scores": result})
    return result


@dataclass(frozen=True)
class Request:
    """What somebody asks a model."""

    prompt: str
    images: Sequence[Path] = ()
    max_new_tokens: int = 64
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0


def answer(directory: RunDirectory, stage: str | None, data: Path, request: Request) -> str:
    """What a run's model says to a request.

    Raises:
        ValueError: if a picture cannot be read or the prompt has no room.
    """
    pictures = [_picture(path) for path in request.images]
    kind, name, model = open_run(directory, stage, data, Console(stderr=True, quiet=True))
    if not isinstance(kind, VisionLanguage) or not isinstance(model, VisionLanguageModel):
        raise ValueError(
            f"{kind.experiment.name} is no vision-language model: it cannot be asked. Ask a run of "
            "an encoder_free model."
        )
    sampling = Sampling(
        request.max_new_tokens,
        kind.encoder.text.end_id,
        request.temperature,
        request.top_p,
        request.seed,
    )
    return reply(model, kind.encoder_of(name), [question(request.prompt, pictures)], sampling)[0]


def _picture(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, UnidentifiedImageError) as error:
        raise ValueError(
            f"{path} is no picture that can be read ({error}): the model would see nothing. Give "
            "the path of a PNG, JPEG or WebP file."
        ) from error
