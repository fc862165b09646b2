"""A run's trained model, ready for use: which weights, and what to say when they do not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn

import lit_eve
from lit_eve import assemble
from lit_eve.checkpoints import read_weights
from lit_eve.inference.assistant import Assistant
from lit_eve.models.tokenizers.image_tokenizer import ImageTokenizer
from lit_eve.running.directory import RunDirectory
from lit_eve.running.kinds import Kind, Tokenizer, VisionLanguage, kind_of
from lit_eve.running.run import quiet
from lit_eve.running.trainer import limit_threads
from lit_eve.running.weights import find_weights, load_weights
from lit_eve.schema import (
    Experiment,
    ExperimentErrors,
    TokenizerExperiment,
    VisionLanguageExperiment,
    load,
)
from lit_eve.schema.language_models import TrainedText
from lit_eve_data.packing.lengths import SampleEncoder


def open_run(
    directory: RunDirectory, stage: str | None, data: Path, console: Console
) -> tuple[Kind[Any, Any], str, nn.Module]:
    """A run's model with the weights of a stage, ready for use, and its datasets.

    Args:
        directory: the run.
        stage: whose weights; None: the last stage that has any, finished or not.
        data: root of prepared datasets.
        console: what the user sees.

    Raises:
        ValueError: if the run has no weights, or not of that stage.
    """
    experiment = read_experiment(directory)
    quiet()
    limit_threads(experiment.hardware)
    name, file = find_weights(directory, list(experiment.stages), stage)
    kind = kind_of(experiment).prepare(experiment, directory, data, console)
    return kind, name, _loaded(kind, name, file)


def open_assistant(directory: RunDirectory, stage: str | None = None) -> Assistant:
    """A vision-language model with the weights of a stage, to be asked; no data is touched.

    Args:
        directory: the run.
        stage: whose weights; None: the last stage that has any, finished or not.

    Raises:
        ValueError: if the run is of another kind, has no weights, or was written by another
            version that this one cannot read.
    """
    experiment = read_experiment(directory)
    if not isinstance(experiment, VisionLanguageExperiment):
        raise ValueError(
            f"{experiment.name} is of type {experiment.model.type}: only vision-language models "
            "answer questions about pictures. Ask a run of an encoder_free or encoder model."
        )
    quiet()
    limit_threads(experiment.hardware)
    name, file = find_weights(directory, list(experiment.stages), stage)
    kind = vision_language(experiment, directory)
    return Assistant(_loaded(kind, name, file), kind.encoder_of(name), name, file)


def vision_language(
    experiment: VisionLanguageExperiment, directory: RunDirectory
) -> VisionLanguage:
    """What a run's model reads through, without its data.

    Raises:
        ValueError: if the run's own text tokenizer is not there.
    """
    trained = isinstance(experiment.model.text, TrainedText)
    if trained and not (directory.text / "tokenizer.json").is_file():
        raise ValueError(
            f"{directory.text} is missing: without the run's own text tokenizer its weights mean "
            "nothing. Copy the whole folder of the run."
        )
    text = assemble.text(experiment.model, {}, directory.text)
    layout = assemble.on_meta(experiment.model, text.num_tokens).layout
    encoder = SampleEncoder(text, assemble.cutter(experiment.model.images, layout))
    return VisionLanguage(experiment, directory, {}, Console(quiet=True), encoder)


def open_tokenizer(directory: RunDirectory, stage: str | None = None) -> ImageTokenizer:
    """A tokenizer's model with the weights of a stage; its data is not touched.

    Args:
        directory: the run.
        stage: whose weights; None: the last stage that has any, finished or not.

    Raises:
        ValueError: if the run is of another kind, or has no weights.
    """
    experiment = read_experiment(directory)
    if not isinstance(experiment, TokenizerExperiment):
        raise ValueError(
            f"{experiment.name} is of type {experiment.model.type}: only image tokenizers turn "
            "pictures into codes. Name a run of one."
        )
    limit_threads(experiment.hardware)
    name, file = find_weights(directory, list(experiment.stages), stage)
    kind = Tokenizer(experiment, directory, {}, Console(quiet=True))
    model: ImageTokenizer = _loaded(kind, name, file)
    return model


def read_experiment(directory: RunDirectory) -> Experiment:
    """The experiment of a run.

    Raises:
        ValueError: if it cannot be read; a run of another version says so.
    """
    try:
        return load(directory.experiment_file)
    except ExperimentErrors as error:
        if (told := other_version(directory)) is None:
            raise
        raise ValueError(f"{told} Its experiment file: {error.problems[0]}") from error


def _loaded(kind: Kind[Any, Any], name: str, file: Path) -> Any:
    """The model with weights from a file of a stage, on the device there is."""
    model = kind.model(weights=False)
    final = file == kind.directory.weights(name)
    try:
        load_weights(model, read_weights(file) if final else kind.final_weights(file), file)
    except (ValueError, RuntimeError) as error:  # names that differ, or shapes
        told = other_version(kind.directory)
        raise ValueError(f"{told} {error}" if told else str(error)) from error
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return model.to(device).eval()


def other_version(directory: RunDirectory) -> str | None:
    """What to say of a run that another version wrote; None if this one did, or nobody knows."""
    file = directory.path / "environment.json"
    try:
        theirs = json.loads(file.read_text())["packages"]["lit-eve"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if theirs == lit_eve.__version__:
        return None
    return (
        f"{directory.path} was written by lit-eve {theirs} and this is {lit_eve.__version__}, "
        f"which cannot read it. Use the version that wrote it: pip install lit-eve=={theirs}."
    )
