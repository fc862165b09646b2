"""A run as a folder that Hugging Face's programs open: weights, settings, processor, model card."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel

from lit_eve import assemble
from lit_eve.assemble.tokenizers import build_tokenizer, sizes
from lit_eve.checkpoints import read_weights
from lit_eve.hub.building import plain
from lit_eve.hub.card import CARD, model_card
from lit_eve.hub.configuration import ImageTokenizerConfig, VisionLanguageConfig
from lit_eve.hub.image_processing import LitEveImageProcessor, LitEvePixelProcessor
from lit_eve.hub.image_tokenizer import LitEveImageTokenizer
from lit_eve.hub.modeling import LitEveForConditionalGeneration
from lit_eve.hub.processing import LitEveProcessor
from lit_eve.importing.checkpoint import fill
from lit_eve.inference.opening import other_version, read_experiment, vision_language
from lit_eve.models.encoder import EncoderVLM
from lit_eve.models.vision_language import VisionLanguageModel
from lit_eve.running.directory import RunDirectory
from lit_eve.running.kinds import Kind, Tokenizer, VisionLanguage
from lit_eve.running.run import quiet
from lit_eve.running.weights import find_weights
from lit_eve.schema import Experiment, TokenizerExperiment, VisionLanguageExperiment

TRAINING_ONLY = ("patch_alignment", "teacher", "discriminator", "perceptual")
"""Parts of a model's block that an exported model has no use for."""
DTYPES: Mapping[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
"""What weights can be written in."""


@dataclass(frozen=True)
class Exported:
    """What was written, and from what."""

    folder: Path
    experiment: Experiment
    stage: str
    file: Path
    """The weights' own."""


def export(
    directory: RunDirectory,
    to: Path,
    stage: str | None = None,
    step: int | None = None,
    dtype: str | None = None,
) -> Exported:
    """Write a run's model as a Hugging Face model. Its data is not touched.

    Args:
        directory: the run, finished or not.
        to: a folder that does not exist, or is empty.
        stage: whose weights; None: the last stage that has any, finished or not.
        step: of its checkpoint; None: the final weights, or those of the newest checkpoint.
        dtype: of the weights written, a name of `DTYPES`; None: as they were trained.

    Raises:
        ValueError: if the run has no weights, they are not its model's, the folder holds
            something, there is no such `dtype`, or it does not fit the model.
    """
    if dtype is not None and dtype not in DTYPES:
        raise ValueError(
            f"weights cannot be written in {dtype!r}: Transformers would not read them. "
            f"Choose from {', '.join(DTYPES)}."
        )
    wanted = None if dtype is None else DTYPES[dtype]
    refuse_full(to)
    quiet()
    experiment = read_experiment(directory)
    if wanted is not None and isinstance(experiment, TokenizerExperiment):
        raise ValueError(
            f"{experiment.name} is an image tokenizer: rounded to {dtype} it would give other "
            "codes for the same pictures than those that were written with it. Leave --dtype out."
        )
    name, file = find_weights(directory, list(experiment.stages), stage, step)
    with written_whole(to) as folder:
        match experiment:
            case VisionLanguageExperiment():
                write_reader(folder, vision_language(experiment, directory), name, file, wanted)
            case TokenizerExperiment():
                kind = Tokenizer(experiment, directory, {}, Console(quiet=True))
                write_image_tokenizer(folder, kind, name, file)
            case _:
                raise ValueError(
                    f"{experiment.name} is of type {experiment.model.type}, whose runs leave a "
                    f"folder of Hugging Face themselves: see `to` in {directory.experiment_file}, "
                    f"or {directory.stage(name) / 'pretrained'}."
                )
        card = model_card(directory, experiment, name, file)
        (folder / CARD).write_text(card, encoding="utf-8")
    return Exported(to, experiment, name, file)


def write_reader(
    folder: Path,
    kind: VisionLanguage,
    stage: str,
    file: Path,
    dtype: torch.dtype | None = None,
) -> None:
    """A vision-language model: weights, settings, processor, tokenizer, chat template."""
    encoder, options = kind.encoder_of(stage), _used(kind.experiment.model)
    text = encoder.text
    shape = assemble.on_meta(options, text.num_tokens)
    processor = LitEveProcessor.of(LitEveImageProcessor.of(encoder.cutter), text)
    block, shapes = plain(options), shapes_of(shape)
    shapes = {part: found for part, found in shapes.items() if "from" in block[part]}
    for part in shapes:
        block[part]["from"] = part
    config = VisionLanguageConfig(
        experiment=block,
        num_tokens=text.num_tokens,
        image_token_id=processor.image_token_id,
        pad_token_id=text.pad_id,
        eos_token_id=text.end_id,
        text_config=_placeless(shape.language_model.text_config.to_dict()),
        shapes={part: _placeless(settings.to_dict()) for part, settings in shapes.items()},
    )
    with torch.device("meta"):
        model = LitEveForConditionalGeneration(config)
    generation: Any = model.generation_config
    generation.eos_token_id, generation.pad_token_id = text.end_id, text.pad_id
    _write(folder, model, _weights(kind, stage, file), kind, file, dtype)
    processor.save_pretrained(folder)


def write_image_tokenizer(folder: Path, kind: Tokenizer, stage: str, file: Path) -> None:
    """An image tokenizer: weights, settings and what prepares pictures."""
    options = _used(kind.experiment.model)
    with torch.device("meta"):
        model = LitEveImageTokenizer(ImageTokenizerConfig(experiment=plain(options)))
        stride = build_tokenizer(options).stride
    _write(folder, model, _weights(kind, stage, file), kind, file)
    LitEvePixelProcessor.of(stride, sizes(options.images)).save_pretrained(folder)


def shapes_of(model: VisionLanguageModel) -> dict[str, PretrainedConfig]:
    """Settings of Transformers' models inside, by part."""
    found = {"language_model": model.language_model.model.config}
    if isinstance(model, EncoderVLM):
        found["vision_encoder"] = model.vision_encoder.config
    return found


def _placeless(settings: Any) -> Any:
    """Plain settings without the path of this machine they were read from."""
    if not isinstance(settings, dict):
        return settings
    return {key: _placeless(value) for key, value in settings.items() if key != "_name_or_path"}


def _used(options: Any) -> Any:
    """A model's block without what only training needs."""
    dropped = [part for part in TRAINING_ONLY if getattr(options, part, None) is not None]
    return options.model_copy(update=dict.fromkeys(dropped))


def _weights(kind: Kind[Any, Any], stage: str, file: Path) -> Mapping[str, Tensor]:
    """A stage's weights without what only training needs."""
    final = file == kind.directory.weights(stage)
    weights = read_weights(file) if final else kind.final_weights(file)
    dropped = tuple(f"{part}." for part in TRAINING_ONLY)
    return {name: tensor for name, tensor in weights.items() if not name.startswith(dropped)}


def _write(
    folder: Path,
    model: PreTrainedModel,
    weights: Mapping[str, Tensor],
    kind: Kind[Any, Any],
    file: Path,
    dtype: torch.dtype | None = None,
) -> None:
    """Settings and weights; `model` needs no memory of its own."""
    prefix = f"{model.base_model_prefix}."
    named = {prefix + name: (name, tensor) for name, tensor in weights.items()}
    try:
        state = fill(model.state_dict(), named, file)
    except ValueError as error:
        told = other_version(kind.directory)
        raise ValueError(f"{told} {error}" if told else str(error)) from error
    if dtype is not None:
        state = {name: _cast(name, tensor, dtype) for name, tensor in state.items()}
    kinds = {tensor.dtype for tensor in state.values() if tensor.is_floating_point()}
    moved: Any = model  # Transformers hides the signature of `to`
    moved.to(dtype=max(kinds, key=lambda kind: torch.finfo(kind).bits))
    model.save_pretrained(folder, state_dict=state, save_original_format=False)


def _cast(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Floating-point weights in another format.

    Raises:
        ValueError: if a finite weight would become infinite.
    """
    if not tensor.is_floating_point():
        return tensor
    most, largest = float(tensor.abs().max()) if tensor.numel() else 0.0, torch.finfo(dtype).max
    if isfinite(most) and most > largest:
        raise ValueError(
            f"{name} has weights of {most:.3g} and {str(dtype).removeprefix('torch.')} ends at "
            f"{largest:.3g}: they would become infinite. Choose --dtype bfloat16, or float32."
        )
    return tensor.to(dtype)


def refuse_full(to: Path) -> None:
    """Raise ValueError if writing to the folder would overwrite something."""
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise ValueError(
            f"{to} exists and is not an empty folder: exporting would overwrite it. Name another "
            "folder with --to, or remove this one."
        )


@contextmanager
def written_whole(to: Path) -> Iterator[Path]:
    """A folder beside the final one, which gets its name when everything is in it."""
    to.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{to.name}.", dir=to.parent))
    try:
        yield folder
        folder.chmod(0o755)
        for file in folder.iterdir():
            file.chmod(0o644)  # safetensors lets nobody else read its files
        if to.is_dir():
            to.rmdir()
        os.replace(folder, to)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
