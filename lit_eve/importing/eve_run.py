"""A published EVE checkpoint as a folder that works like a finished run.

TARGET/experiment.yaml              model, image sizes; one stage, `imported`
TARGET/language_model/config.json   the decoder's settings
TARGET/text/                        the text tokenizer
TARGET/imported/model.safetensors   all weights, by this platform's names
TARGET/import.json                  what became of every tensor of the checkpoint
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lit_eve.checkpoints.weights import write_weights
from lit_eve.importing.checkpoint import Report, read_config
from lit_eve.importing.eve import CLIP, POOL, Imported, Version, convert
from lit_eve.schema import load
from lit_eve.schema.writing import to_yaml
from lit_eve_data.encoding.text import ChatText
from lit_eve_data.encoding.vocabulary import pretrained_text

STAGE = "imported"
TEACHER = "hf:openai/clip-vit-large-patch14-336"
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""CLIP's, in both versions."""
_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the user's questions."
)
VICUNA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'] }} "
    "{% else %}" + _SYSTEM + " {% endif %}"
    "{% for turn in messages %}{% if turn['role'] == 'user' %}USER: {{ turn['content'] }} "
    "{% elif turn['role'] == 'assistant' %}ASSISTANT: {{ turn['content'] }}{{ eos_token }}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
"""The prompt that both versions were instructed with. v1's checkpoints carry no template, v2's that
of the Qwen it started as, which it was not trained with."""


def import_eve(
    source: Path,
    target: Path,
    version: Version,
    *,
    side: int | None = None,
    pool: int = POOL,
    alignment: bool = False,
) -> Report:
    """Write a checkpoint of EVE as a folder that `generate`, `evaluate` and `do: load` read.

    Args:
        source: the checkpoint's folder, with its config.json and text tokenizer.
        target: the folder to write; must not exist.
        version: what it is a checkpoint of.
        side: longest edge (v1) or side of the area (v2) in pixels; read off the settings if None.
        pool: side of v1's windows in patches.
        alignment: take v1's patch alignment along.

    Raises:
        ValueError: if the checkpoint is not whole, or the target exists.
    """
    if target.exists():
        raise ValueError(f"{target} exists: an import does not overwrite. Name another folder.")
    settings = read_config(source)
    imported = convert(source, version, pool, alignment)
    folder = source if source.is_dir() else source.parent
    text = pretrained_text(str(folder), template=VICUNA)
    side = side or _side(settings, version)
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of an import that was interrupted
    try:
        cell = imported.patch_embedding["patch"] * imported.patch_embedding["pool"]
        _write(partial, target.absolute(), imported, text, _images(version, side, cell))
        load(partial / "experiment.yaml")
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return imported.report


def _write(
    partial: Path, target: Path, imported: Imported, text: ChatText, images: Mapping[str, Any]
) -> None:
    (partial / STAGE).mkdir(parents=True)
    imported.config.save_pretrained(partial / "language_model")
    text.save(partial / "text")
    write_weights(partial / STAGE / "model.safetensors", imported.state)
    experiment = to_yaml(_experiment(target, imported, images))
    (partial / "experiment.yaml").write_text(experiment, encoding="utf-8")
    for name, content in (
        ("import.json", asdict(imported.report)),
        (f"{STAGE}/summary.json", {"state": "finished", "steps": 0, "samples": 0, "seconds": 0.0}),
    ):
        (partial / name).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _experiment(target: Path, imported: Imported, images: Mapping[str, Any]) -> dict[str, Any]:
    """The experiment whose finished run the folder is."""
    decoder: dict[str, Any] = {"type": "pretrained", "from": str(target / "language_model")}
    if imported.patch_embedding["type"] == "eve_v2":
        decoder["divide"] = "full"
    model: dict[str, Any] = {
        "type": "encoder_free",
        "language_model": decoder,
        "patch_embedding": imported.patch_embedding,
        "images": {
            "size": dict(images),
            "mean": list(MEAN),
            "std": list(STD),
            "resize": "pillow",  # as it was trained
        },
    }
    experiment: dict[str, Any] = {
        "name": re.sub(r"[^A-Za-z0-9_-]", "-", target.name).lstrip("-_") or STAGE,
        "question": "What does this published checkpoint see?",
        "model": model,
        "datasets": {"scenes": {"type": "scenes", "train": 100, "val": 100, "test": 1000}},
        "stages": {STAGE: {"do": "load", "weights": str(target / STAGE / "model.safetensors")}},
    }
    if imported.patch_alignment is not None:
        model["patch_alignment"] = imported.patch_alignment
        model["teacher"] = {"type": "clip", "from": TEACHER, "layer": -2}
        experiment["loss"] = {"alignment": {"weight": 1.0, "distance": "cosine"}}
    return experiment


def _images(version: Version, side: int, cell: int) -> dict[str, Any]:
    """Sizes as the checkpoint was trained with (v1) or is used with by its authors (v2)."""
    if version == "eve-v2":
        return {"type": "area", "max_side": side, "rule": "eve_v2_inference"}
    # Cells of v1's teacher, 14 of 336 px, are whole cells of the student.
    multiple = max(1, 14 * side // CLIP // cell) * cell
    return {"type": "longest_edge", "edge": side, "rounding": "up", "multiple": multiple}


def _side(settings: Mapping[str, Any], version: Version) -> int:
    """The size of pictures, which the name of the authors' image processor ends in."""
    name = str(settings.get("mm_vision_tower", ""))
    found = re.search(r"(\d{3,4})$" if version == "eve-v1" else r"res(\d+)", name)
    if found is None:
        raise ValueError(
            f"config.json names the image processor {name!r}, which does not say how large "
            "pictures are. Give it in pixels: --side 672 or 1344 for eve-v1, 800 or 1600 for "
            "eve-v2."
        )
    return int(found[1])
