"""Vision-language models from the experiment file's words: one visible table per `type:`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from transformers import AutoConfig, ViTConfig

from lit_eve.assemble.addresses import name_or_path
from lit_eve.assemble.connectors import CONNECTORS
from lit_eve.assemble.vision_encoders import NO_SHAPES, VISION_ENCODERS, Shapes
from lit_eve.models.divide_and_conquer import DividedLanguageModel
from lit_eve.models.encoder import CrossAttentionVLM, EncoderVLM
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
from lit_eve.models.vision_language import VisionLanguageModel
from lit_eve.schema import alignments, encoders, images, language_models, patch_embeddings
from lit_eve.schema.models import EncoderFree, EncoderModel, VisionLanguage
from lit_eve_data.batches import ImageLayout
from lit_eve_data.encoding.images import Area, ImageCutter, LongestEdge, Native, SizePolicy, Square

Options = Any
"""A block of the schema; each function of a table knows its own class."""


def _llama(
    options: language_models.Llama, num_tokens: int, weights: bool, shapes: Shapes
) -> LanguageModel:
    return LanguageModel.llama(
        num_tokens,
        options.width,
        options.depth,
        options.heads,
        kv_heads=options.kv_heads,
        ffn=options.ffn,
        rope_theta=options.rope_theta,
        init_std=options.init_std,
        max_positions=options.max_positions,
        tie_embeddings=options.tie_embeddings,
    )


def _pretrained(
    options: language_models.Pretrained, num_tokens: int, weights: bool, shapes: Shapes
) -> LanguageModel:
    if options.source in shapes:
        return LanguageModel.shaped_like(shapes[options.source])
    source = name_or_path(options.source.resolved())
    return LanguageModel.pretrained(source) if weights else LanguageModel.shaped_like(source)


LANGUAGE_MODELS: Mapping[str, Callable[[Options, int, bool, Shapes], LanguageModel]] = {
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


def vision_language(
    options: VisionLanguage,
    num_tokens: int,
    weights: bool = True,
    shapes: Shapes = NO_SHAPES,
) -> VisionLanguageModel:
    """The model of an experiment.

    Args:
        options: its block in the file.
        num_tokens: size of the text tokenizer's vocabulary.
        weights: read what is pretrained with its weights; without, only its shape.
        shapes: see `Shapes`; what stands there gets no weights.
    """
    decoder = options.language_model
    language_model = LANGUAGE_MODELS[decoder.type](decoder, num_tokens, weights, shapes)
    if decoder.divide is not None:
        language_model = DividedLanguageModel(language_model, decoder.divide)
    if isinstance(options, EncoderModel):
        return _encoder(options, language_model, weights, shapes)
    return _encoder_free(options, language_model)


def _encoder_free(options: EncoderFree, language_model: LanguageModel) -> EncoderFreeVLM:
    embedding = options.patch_embedding
    return EncoderFreeVLM(
        language_model,
        PATCH_EMBEDDINGS[embedding.type](embedding, language_model.width),
        _patch_alignment(options, language_model),
    )


def _encoder(
    options: EncoderModel, decoder: LanguageModel, weights: bool, shapes: Shapes
) -> EncoderVLM:
    given = Normalisation(options.images.mean, options.images.std)
    seen = options.vision_encoder
    encoder = VISION_ENCODERS[seen.type](seen, given, weights, shapes)
    connector = CONNECTORS[options.connector.type](options.connector, encoder, decoder.width)
    fusion = options.fusion
    if isinstance(fusion, encoders.CrossAttentionFusion):
        return CrossAttentionVLM(encoder, connector, decoder, fusion.heads, fusion.every)
    return EncoderVLM(encoder, connector, decoder)


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
    config = AutoConfig.from_pretrained(name_or_path(options.source.resolved()))
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
            source = name_or_path(seen.source.resolved())
            return Teacher.pretrained(source, seen.layer, embedding.layout, given)
        case None:
            raise ValueError("there is no teacher to align with. Add model.teacher.")


SIZES: Mapping[str, Callable[[Options], SizePolicy]] = {
    "native": lambda size: Native(),
    "longest_edge": lambda size: LongestEdge(size.edge, size.rounding, size.multiple),
    "area": lambda size: Area(size.max_side, size.rule),
    "square": lambda size: Square(size.edge),
}


def cutter(options: images.Images, layout: ImageLayout) -> ImageCutter:
    """What turns pictures into patches of a model's layout."""
    size = SIZES[options.size.type](options.size)
    return ImageCutter(layout, size, options.mean, options.std, options.resize)


def on_meta(options: VisionLanguage, num_tokens: int) -> VisionLanguageModel:
    """The model's shape without any memory: a 7 B plan takes seconds."""
    with torch.device("meta"):
        return vision_language(options, num_tokens, weights=False)
