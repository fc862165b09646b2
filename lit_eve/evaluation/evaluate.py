"""A finished run at work: held-out scores, and answers to anybody's questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image, UnidentifiedImageError
from rich.console import Console
from rich.table import Table

from lit_eve import assemble
from lit_eve.checkpoints import newest
from lit_eve.evaluation.examine import question, reply
from lit_eve.models.generation import Sampling
from lit_eve.models.vision_language import VisionLanguageModel
from lit_eve.running.directory import RunDirectory
from lit_eve.running.run import quiet
from lit_eve.running.setting import Setting, prepare
from lit_eve.running.stage import examine, load_weights
from lit_eve.running.trainer import limit_threads
from lit_eve.schema import VisionLanguageExperiment, load


def open_run(
    directory: RunDirectory, stage: str | None, data: Path, console: Console
) -> tuple[Setting, str, VisionLanguageModel]:
    """A run's model with the weights of a stage, ready to be asked.

    Args:
        directory: the run.
        stage: whose weights; None: the last stage that has any, finished or not.
        data: root of prepared datasets.
        console: what the user sees.

    Raises:
        ValueError: if the run has no weights, or not of that stage.
    """
    experiment = load(directory.experiment_file)
    if not isinstance(experiment, VisionLanguageExperiment):
        raise ValueError(f"{experiment.name} is no vision-language model: it cannot be asked.")
    quiet()
    limit_threads(experiment.hardware)
    name, weights = _weights(directory, list(experiment.stages), stage)
    setting = prepare(experiment, directory, data, console)
    model = assemble.encoder_free(experiment.model, setting.encoder.text.num_tokens, weights=False)
    load_weights(model, weights)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return setting, name, model.to(device).eval()


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
    setting, name, model = open_run(directory, stage, data, console)
    result = examine(setting, name, model, questions)
    table = Table("kind", name, title="held-out answers, by generation", title_justify="left")
    for kind, value in result.items():
        table.add_row(kind, f"{value:.1%}")
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
    setting, _, model = open_run(directory, stage, data, Console(stderr=True, quiet=True))
    sampling = Sampling(
        request.max_new_tokens,
        setting.encoder.text.end_id,
        request.temperature,
        request.top_p,
        request.seed,
    )
    return reply(model, setting.encoder, [question(request.prompt, pictures)], sampling)[0]


def _picture(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, UnidentifiedImageError) as error:
        raise ValueError(
            f"{path} is no picture that can be read ({error}): the model would see nothing. Give "
            "the path of a PNG, JPEG or WebP file."
        ) from error
