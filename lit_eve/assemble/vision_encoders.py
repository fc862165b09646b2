"""Vision encoders of the baselines from the experiment file's words: one visible table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from transformers import AutoConfig, Florence2Config, PretrainedConfig, ViTConfig

from lit_eve.assemble.addresses import name_or_path
from lit_eve.models.florence2 import Florence2Encoder, settings_of
from lit_eve.models.teacher import Normalisation
from lit_eve.models.vision_encoder import VisionEncoder, VitEncoder
from lit_eve.schema import vision_encoders

Options = Any
"""A block of the schema; each function of the table knows its own class."""

Shapes = Mapping[str, PretrainedConfig]
"""Settings of pretrained models by the address in the file; read from there if missing."""
NO_SHAPES: Shapes = MappingProxyType({})

BYTES = 256
"""Words of a Florence-2 with random weights."""


def _vit(
    options: vision_encoders.VitEncoder, given: Normalisation, weights: bool, shapes: Shapes
) -> VisionEncoder:
    config = ViTConfig(
        hidden_size=options.width,
        num_hidden_layers=options.depth,
        num_attention_heads=options.heads,
        intermediate_size=4 * options.width,
        image_size=options.image,
        patch_size=options.patch,
    )
    return VitEncoder.random(config, options.layers, given)


def _florence2(
    options: vision_encoders.Florence2Encoder, given: Normalisation, weights: bool, shapes: Shapes
) -> VisionEncoder:
    after = range(options.stages - 1, -1, -1)  # stages that follow each: wide and coarse at the end
    grid, further = options.image // options.patch, options.stages - 1
    heads = [options.heads >> n if options.heads % 2**n == 0 else 1 for n in after]
    tower = {
        "depths": [1] * options.stages,
        "patch_size": [7, *[3] * further],
        "patch_stride": [4, *[2] * further],
        "patch_padding": [3, *[1] * further],
        "patch_prenorm": [False, *[True] * further],
        "embed_dim": [options.width >> n for n in after],
        "num_heads": heads,
        "num_groups": heads,
        "window_size": min(12, grid),
        "drop_path_rate": 0.0,
        "projection_dim": options.width,
        "max_position_embeddings": grid,
    }
    reading = {
        "model_type": "bart",
        "vocab_size": BYTES,
        "d_model": options.width,
        "encoder_layers": options.depth,
        "encoder_attention_heads": options.heads,
        "encoder_ffn_dim": 4 * options.width,
        "decoder_layers": 0,
        "dropout": 0.0,
        "max_position_embeddings": 1 + grid**2 + max(len(p.encode()) for p in options.prompts),
    }
    config = Florence2Config(vision_config=tower, text_config=reading)
    return Florence2Encoder.random(config, options.layers, options.prompts, options.image, given)


def _pretrained(
    options: vision_encoders.PretrainedEncoder, given: Normalisation, weights: bool, shapes: Shapes
) -> VisionEncoder:
    kept, prompts = shapes.get(options.source), options.prompts or ()
    source = name_or_path(options.source.resolved()) if kept is None else str(options.source)
    config = AutoConfig.from_pretrained(source) if kept is None else kept
    trained = weights and kept is None
    if config.model_type == "florence2":
        if trained:
            return Florence2Encoder.pretrained(source, options.layers, prompts, given)
        shape = settings_of(source, prompts) if kept is None else kept
        return Florence2Encoder.shaped_like(shape, options.layers, prompts, given)
    if prompts:
        raise ValueError(
            f"model.vision_encoder.prompts: {source} is a {config.model_type}, which sees and does "
            "not read: prompts would be ignored. Take them out, or choose a Florence-2, such as "
            "hf:florence-community/Florence-2-large-ft."
        )
    if trained:
        return VitEncoder.pretrained(source, options.layers, given)
    return VitEncoder.shaped_like(config, options.layers, given)


VISION_ENCODERS: Mapping[str, Callable[[Options, Normalisation, bool, Shapes], VisionEncoder]] = {
    "vit": _vit,
    "florence2": _florence2,
    "pretrained": _pretrained,
}
