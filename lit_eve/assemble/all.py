"""From the experiment file's words to objects: one visible table per `type:`.

The only file that knows every room. A class gets plain arguments; it never sees the schema.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from transformers import AutoConfig, ViTConfig

from lit_eve.models.encoder_free import EncoderFreeVLM
from lit_eve.models.language_model import LanguageModel
from lit_eve.models.patch_alignment import PatchAlignment
from lit_eve.models.patch_embedding import (
    EvePatchEmbedding,
    EveV2PatchEmbedding,
    LinearPatchEmbedding,
    PatchEmbedding,
)
from lit_eve.models.teacher import Normalisation, Teacher
from lit_eve.schema import (
    VisionLanguageExperiment,
    alignments,
    datasets,
    images,
    language_models,
    patch_embeddings,
)
from lit_eve.schema.models import EncoderFree
from lit_eve.schema.schedules import Schedule, TrainPart
from lit_eve.schema.training import AdamW, LanguageStage, Stage
from lit_eve.tasks.alignment import Aligning, AlignmentTask
from lit_eve.tasks.language import LanguageTask
from lit_eve.tasks.optimizers import AdamWOptions, Rate
from lit_eve_callbacks.schedules import schedule as make_schedule
from lit_eve_callbacks.schedules import warmup
from lit_eve_data.images import Area, ImageCutter, LongestEdge, Native, SizePolicy, Square
from lit_eve_data.prepare import Progress, prepare_scenes
from lit_eve_data.reading import RecordStore, RecordView
from lit_eve_data.scenes import ScenesOptions
from lit_eve_data.text import ChatText
from lit_eve_data.vocabulary import bytes_text, pretrained_text, train_text

TEXTS = 4_000
"""Samples of each dataset that a text tokenizer is trained on."""

Options = Any
"""A block of the schema; each function of a table knows its own class."""


def _name_or_path(address: str) -> str:
    """What Transformers calls a model; `hf:` only says in the file that it is on the hub."""
    return address.removeprefix("hf:")


# datasets ------------------------------------------------------------------------------------


def _scenes(options: datasets.Scenes, root: Path, progress: Progress | None) -> Path:
    names = {field.name for field in fields(ScenesOptions)}
    return prepare_scenes(
        ScenesOptions(**{name: getattr(options, name) for name in names}), root, progress
    )


def _litdata(options: datasets.LitDataSet, root: Path, progress: Progress | None) -> Path:
    return Path(options.path.resolved())


DATASETS: Mapping[str, Callable[[Options, Path, Progress | None], Path]] = {
    "scenes": _scenes,
    "litdata": _litdata,
}


def dataset(options: datasets.Dataset, root: Path, progress: Progress | None = None) -> Path:
    """The folder of a prepared dataset; built-in ones are prepared under `root` first."""
    return DATASETS[options.type](options, root, progress)


def view(directories: Mapping[str, Path], name: str, split: str) -> RecordView:
    """The samples that a stage's `data:` names: `dataset` or `dataset.subset`."""
    head, _, subset = name.partition(".")
    store = RecordStore(directories[head], split)
    return store.subset(subset) if subset else store.view


# text ----------------------------------------------------------------------------------------


def text(options: EncoderFree, directories: Mapping[str, Path], saved: Path) -> ChatText:
    """The text tokenizer; a trained one is kept in `saved` and read back from there.

    Args:
        options: the model.
        directories: prepared datasets, whose texts a tokenizer is trained on.
        saved: folder of this run's own tokenizer.
    """
    saved.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(saved.parent / ".text.lock"):  # every rank of a launch comes here at once
        if not (saved / "tokenizer.json").is_file():
            _new_text(options, directories).save(saved)
    return ChatText.load(saved)


def _new_text(options: EncoderFree, directories: Mapping[str, Path]) -> ChatText:
    match options.text:
        case language_models.TrainedText(vocabulary=size):
            stores = [RecordStore(directories[name]) for name in sorted(directories)]
            return train_text((line for store in stores for line in store.texts(TEXTS)), size)
        case language_models.BytesText():
            return bytes_text()
        case None:
            assert isinstance(options.language_model, language_models.Pretrained)
            return pretrained_text(_name_or_path(options.language_model.source.resolved()))


# model ---------------------------------------------------------------------------------------


def _llama(options: language_models.Llama, num_tokens: int, weights: bool) -> LanguageModel:
    return LanguageModel.llama(
        num_tokens,
        options.width,
        options.depth,
        options.heads,
        kv_heads=options.kv_heads,
        ffn=options.ffn,
        rope_theta=options.rope_theta,
        max_positions=options.max_positions,
        tie_embeddings=options.tie_embeddings,
    )


def _pretrained(
    options: language_models.Pretrained, num_tokens: int, weights: bool
) -> LanguageModel:
    source = _name_or_path(options.source.resolved())
    return LanguageModel.pretrained(source) if weights else LanguageModel.shaped_like(source)


LANGUAGE_MODELS: Mapping[str, Callable[[Options, int, bool], LanguageModel]] = {
    "llama": _llama,
    "pretrained": _pretrained,
}


def _eve(options: patch_embeddings.EvePatchEmbedding, out_width: int) -> PatchEmbedding:
    return EvePatchEmbedding(options.patch, options.pool, options.width, out_width, options.heads)


def _eve_v2(options: patch_embeddings.EveV2PatchEmbedding, out_width: int) -> PatchEmbedding:
    return EveV2PatchEmbedding(options.patch, options.pool, options.width, out_width)


def _linear(options: patch_embeddings.LinearPatchEmbedding, out_width: int) -> PatchEmbedding:
    return LinearPatchEmbedding(options.patch, out_width)


PATCH_EMBEDDINGS: Mapping[str, Callable[[Options, int], PatchEmbedding]] = {
    "eve": _eve,
    "eve_v2": _eve_v2,
    "linear": _linear,
}


def encoder_free(options: EncoderFree, num_tokens: int, weights: bool = True) -> EncoderFreeVLM:
    """The model of an experiment.

    Args:
        options: its block in the file.
        num_tokens: size of the text tokenizer's vocabulary.
        weights: read a pretrained decoder's weights; without, only its shape.
    """
    decoder = options.language_model
    language_model = LANGUAGE_MODELS[decoder.type](decoder, num_tokens, weights)
    embedding = options.patch_embedding
    return EncoderFreeVLM(
        language_model,
        PATCH_EMBEDDINGS[embedding.type](embedding, language_model.width),
        _patch_alignment(options, language_model),
    )


def _patch_alignment(options: EncoderFree, decoder: LanguageModel) -> PatchAlignment | None:
    alignment, seen = options.patch_alignment, options.teacher
    if alignment is None or seen is None:
        return None
    return PatchAlignment(
        decoder.width,
        decoder.depth,
        alignment.width,
        teacher_width(seen),
        alignment.heads,
        alignment.every,
    )


def teacher_width(options: alignments.Teacher) -> int:
    """Width of a teacher's features, without its weights."""
    if isinstance(options, alignments.RandomTeacher):
        return options.width
    config = AutoConfig.from_pretrained(_name_or_path(options.source.resolved()))
    return int(getattr(config, "vision_config", config).hidden_size)


def teacher(options: EncoderFree, embedding: PatchEmbedding) -> Teacher:
    """The frozen vision encoder of an experiment, which must have one."""
    seen = options.teacher
    given = Normalisation(options.images.mean, options.images.std)
    match seen:
        case alignments.RandomTeacher():
            config = ViTConfig(
                hidden_size=seen.width,
                num_hidden_layers=seen.depth,
                num_attention_heads=seen.heads,
                intermediate_size=4 * seen.width,
                image_size=seen.image,
                patch_size=seen.patch,
            )
            return Teacher.random(config, seen.layer, embedding.layout, given)
        case alignments.PretrainedTeacher():
            source = _name_or_path(seen.source.resolved())
            return Teacher.pretrained(source, seen.layer, embedding.layout, given)
        case None:
            raise ValueError("there is no teacher to align with. Add model.teacher.")


SIZES: Mapping[str, Callable[[Options], SizePolicy]] = {
    "native": lambda size: Native(),
    "longest_edge": lambda size: LongestEdge(size.edge),
    "area": lambda size: Area(size.max_side),
    "square": lambda size: Square(size.edge),
}


def cutter(options: images.Images, embedding: PatchEmbedding) -> ImageCutter:
    """What turns pictures into the patches that `embedding` reads."""
    return ImageCutter(
        embedding.layout, SIZES[options.size.type](options.size), options.mean, options.std
    )


# training ------------------------------------------------------------------------------------


def rates(stage: Stage, steps: int) -> dict[str, Rate]:
    """Learning rate of every trained part as a function of the stage's step."""
    return {part: _rate(options, stage.optimizer, steps) for part, options in stage.train.items()}


def _rate(part: TrainPart, optimizer: AdamW, steps: int) -> Rate:
    if isinstance(part.lr, Schedule) or optimizer.schedule == "constant":
        shape = number(part.lr, steps)
    else:
        end = part.lr * optimizer.final
        shape = make_schedule(optimizer.schedule, start=part.lr, end=end, steps=steps)
    rising = (part.warmup or optimizer.warmup).steps(steps)
    return lambda step: shape(step) * warmup(max(0, step - part.thaw), steps=rising)


def number(value: float | Schedule, steps: int) -> Rate:
    """A number of the file as a function of the step of a stage of `steps` steps."""
    if not isinstance(value, Schedule):
        return lambda step: value
    return make_schedule(
        value.schedule, start=value.start, end=value.end, steps=max(1, value.over.steps(steps))
    )


def task(
    experiment: VisionLanguageExperiment, stage: LanguageStage, model: EncoderFreeVLM, steps: int
) -> LanguageTask:
    """The LightningModule of a stage of `steps` steps."""
    loss = experiment.loss
    options = adamw(stage.optimizer)
    language = number(loss.language, steps)
    if stage.task == "language":
        return LanguageTask(model, rates(stage, steps), options, language)
    assert loss.alignment is not None  # the experiment file was checked
    aligning = Aligning(
        teacher(experiment.model, model.patch_embedding),
        number(loss.alignment.weight, steps),
        loss.alignment.distance,
    )
    return AlignmentTask(model, rates(stage, steps), options, aligning, language)


def adamw(options: AdamW) -> AdamWOptions:
    """The optimizer's options besides the learning rate."""
    return AdamWOptions(options.betas, options.eps, options.weight_decay)


def on_meta(options: EncoderFree, num_tokens: int) -> EncoderFreeVLM:
    """The model's shape without any memory: a 7 B plan takes seconds."""
    with torch.device("meta"):
        return encoder_free(options, num_tokens, weights=False)
