"""The published checkpoints of EVE (v1) and EVEv2 as models of this platform.

Source: the authors' code (github.com/baaivision/EVE), whose tensors these are. Names there are
those of a Llama or Qwen2 of Transformers, with `vision_tower`, `mm_projector` and, in v2, a second
set of weights whose names start with `moe_`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig

from lit_eve.importing.checkpoint import Report, fill, read_config, read_tensors
from lit_eve.models.divide_and_conquer import DividedLanguageModel
from lit_eve.models.encoder_free import EncoderFreeVLM
from lit_eve.models.language_model import LanguageModel
from lit_eve.models.patch_alignment import PatchAlignment
from lit_eve.models.patch_embedding import EvePatchEmbedding, EveV2PatchEmbedding, PatchEmbedding

Version = Literal["eve-v1", "eve-v2"]
HEADS = 8
"""Of all three cross-attentions of v1, whatever the width."""
POOL = 2
"""Side of v1's windows in patches; no tensor says it."""
CLIP = 336
"""Side of v1's teacher, whose cells set the grain of its image sizes."""

_ATTENTION = {
    "q.0": "query_norm",
    "q.1": "query",
    "kv.0": "key_value_norm",
    "kv.1": "key_value",
    "proj": "project",
}
_V1 = {
    "model.vision_tower.patch_embedding": "patch_embedding.patches",
    "model.vision_tower.class_embedding": "patch_embedding.class_embedding",
    "model.vision_tower.split_embedding": "patch_embedding.row_end_embedding",
    "model.mm_projector": "patch_embedding.project",
    "model.vision_tower_compressor.input_layer": "patch_alignment.residual",
    "model.vision_tower_compressor.output_layer": "patch_alignment.output",
    **{
        f"model.vision_tower.{there}_attention.{part}": f"patch_embedding.{here}_attention.{name}"
        for there, here in (("local", "window"), ("global", "image"))
        for part, name in _ATTENTION.items()
    },
}
_V2 = {
    "model.vision_tower.patch_embedding.0": "patch_embedding.patches",
    "model.vision_tower.patch_embedding.2": "patch_embedding.windows",
    "model.vision_tower.class_embedding": "patch_embedding.class_embedding",
    "model.vision_tower.split_embedding": "patch_embedding.row_end_embedding",
    # what the first release called them; loaded by the second, they stayed random
    "model.vision_tower.start_embedding": "patch_embedding.class_embedding",
    "model.vision_tower.end_embedding": "patch_embedding.row_end_embedding",
}
_UNUSED = {
    r"\.rotary_emb\.inv_freq$": "follows from the settings",
    r"^model\.vision_clip\.|^model\.vision_tower_compressor\.clip_layer\.": (
        "the teacher, frozen: read from where it was published"
    ),
}
_ALIGNMENT = r"^model\.vision_tower_compressor\."
_DECODER = r"^(model\.(embed_tokens|norm)\.|lm_head\.|model\.layers\.)"
_SETTINGS = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers"),
    *("num_attention_heads", "num_key_value_heads", "hidden_act", "max_position_embeddings"),
    *("rms_norm_eps", "rope_theta", "rope_scaling", "rope_parameters", "tie_word_embeddings"),
    *("initializer_range", "bos_token_id", "eos_token_id"),
)


@dataclass(frozen=True)
class Imported:
    """A checkpoint in this platform's terms."""

    config: PretrainedConfig
    """The decoder's settings."""
    state: dict[str, Tensor]
    """All weights, by the names of an `EncoderFreeVLM`."""
    patch_embedding: dict[str, Any]
    """The block of an experiment file."""
    patch_alignment: dict[str, Any] | None
    report: Report


def convert(source: Path, version: Version, pool: int = POOL, alignment: bool = False) -> Imported:
    """Read a checkpoint and name its tensors as ours are named.

    Args:
        source: its folder.
        version: what it is a checkpoint of.
        pool: side of v1's windows in patches.
        alignment: take v1's patch alignment along, to go on training with the teacher.

    Raises:
        ValueError: if it cannot be read, or does not fill the model to the last tensor.
    """
    config, tensors = decoder_config(read_config(source), version), read_tensors(source)
    report = Report()
    taken: dict[str, tuple[str, Tensor]] = {}
    for name, tensor in tensors.items():
        reason = _not_needed(name, alignment)
        here = name if reason else our_name(name, version)
        if reason:
            report.unused[name] = reason
            continue
        if here in taken:
            raise ValueError(
                f"{taken[here][0]} and {name} are both {here}: which one counts is not known. "
                "Remove one of them."
            )
        report.used[name] = here
        taken[here] = (name, tensor)
    embedding = _embedding_block(taken, version, pool, source)
    aligned = _alignment_block(taken, config.num_hidden_layers, source) if alignment else None
    with torch.device("meta"):
        own = _model(config, version, embedding, aligned).state_dict()
    head, words = "language_model.model.lm_head.weight", "language_model.model.model.embed_tokens"
    if config.tie_word_embeddings and head not in taken and f"{words}.weight" in taken:
        taken[head] = taken[f"{words}.weight"]
    return Imported(config, fill(own, taken, source), embedding, aligned, report)


def our_name(name: str, version: Version) -> str:
    """A tensor's name here; its own name again where this platform knows no such tensor."""
    for there, here in (_V1 if version == "eve-v1" else _V2).items():
        if name == there or name.startswith(f"{there}."):
            return here + name[len(there) :]
    norm = re.match(r"^model\.vision_tower_compressor\.norm_layer\.(\d+)\.([01])\.(\w+)$", name)
    if norm and version == "eve-v1":
        number, place, end = norm.groups()
        return f"patch_alignment.{('norms', 'projections')[int(place)]}.{number}.{end}"
    if not re.match(_DECODER, name):
        return name
    return f"language_model.model.{_divided(name) if version == 'eve-v2' else name}"


def _divided(name: str) -> str:
    """`a.moe_b.c` is what visual tokens have of `a.b.c`, which then is text's."""
    inside = r"(\.layers\.\d+\.(?:self_attn\.)?)(moe_)?([qkvo]_proj|mlp|\w+layernorm)\."
    return re.sub(inside, lambda m: f"{m[1]}{m[3]}.{'vision' if m[2] else 'text'}.", name, count=1)


def _not_needed(name: str, alignment: bool) -> str | None:
    for pattern, reason in _UNUSED.items():
        if re.search(pattern, name):
            return reason
    if re.search(_ALIGNMENT, name) and not alignment:
        return "patch alignment, for training only: --alignment takes it along"
    return None


def decoder_config(settings: Mapping[str, Any], version: Version) -> PretrainedConfig:
    """The decoder's settings, without EVE's own.

    Raises:
        ValueError: if its size is not said.
    """
    kind = "llama" if version == "eve-v1" else "qwen2"
    needed = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers")
    absent = [key for key in (*needed, "num_attention_heads") if key not in settings]
    if absent:
        raise ValueError(
            f"config.json does not say {', '.join(absent)}, so the decoder's size is not known. "
            "Take the config.json that came with the weights."
        )
    chosen = {k: settings[k] for k in _SETTINGS if settings.get(k) is not None}
    chosen.setdefault("tie_word_embeddings", False)
    return AutoConfig.for_model(kind, **chosen)


def _embedding_block(
    taken: Mapping[str, tuple[str, Tensor]], version: Version, pool: int, source: Path
) -> dict[str, Any]:
    """The patch embedding's size, as its tensors say it."""
    names = ["patch_embedding.patches.weight", "patch_embedding.windows.weight"]
    absent = [n for n in names[: 1 + (version == "eve-v2")] if n not in taken]
    if absent or any(taken[n][1].ndim != 4 for n in names if n in taken):
        raise ValueError(
            f"{source} holds no patch embedding of {version}: {', '.join(absent or names)} would "
            "be its convolution. Is it the other version, or a language model alone?"
        )
    patches = taken[names[0]][1]
    size: dict[str, Any] = {"patch": patches.shape[-1], "width": patches.shape[0]}
    if version == "eve-v1":
        return {"type": "eve", **size, "pool": pool, "heads": HEADS}
    return {"type": "eve_v2", **size, "pool": taken[names[1]][1].shape[-1]}


def _alignment_block(
    taken: Mapping[str, tuple[str, Tensor]], depth: int, source: Path
) -> dict[str, Any]:
    """The patch alignment's size, as its tensors say it."""
    read = sum(name.startswith("patch_alignment.projections.") for name in taken)
    every = [n for n in range(1, depth + 1) if len(range(depth, -1, -n)) == read]
    if not every:
        raise ValueError(
            f"{source} holds no patch alignment: it reads {read} layers of {depth}. Leave out "
            "--alignment."
        )
    width = taken["patch_alignment.projections.0.weight"][1].shape[0]
    chosen = 4 if 4 in every else every[0]  # 4 in all that was published
    return {"width": width, "heads": HEADS, "every": chosen}


def _model(
    config: PretrainedConfig,
    version: Version,
    embedding: Mapping[str, Any],
    alignment: Mapping[str, Any] | None,
) -> EncoderFreeVLM:
    decoder = LanguageModel(AutoModelForCausalLM.from_config(config))  # type: ignore[no-untyped-call]
    layer: PatchEmbedding
    patch, pool, width = (embedding[key] for key in ("patch", "pool", "width"))
    if version == "eve-v2":
        decoder = DividedLanguageModel(decoder, "full")
        layer = EveV2PatchEmbedding(patch, pool, width, decoder.width)
    else:
        layer = EvePatchEmbedding(patch, pool, width, decoder.width, embedding["heads"])
    aligning = None
    if alignment is not None:
        wide = alignment["width"]
        aligning = PatchAlignment(
            decoder.width, decoder.depth, wide, wide, alignment["heads"], alignment["every"]
        )
    return EncoderFreeVLM(decoder, layer, aligning)
