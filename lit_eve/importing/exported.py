"""Folders that `lit-eve export` wrote, taken back in: as weights, or as a run to go on from.

TARGET/experiment.yaml              the exported model; one stage, `imported`
TARGET/text/                        its text tokenizer
TARGET/language_model/config.json   and vision_encoder: settings of what was pretrained
TARGET/imported/model.safetensors   all weights, by this platform's names
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig

from lit_eve.checkpoints.weights import write_weights
from lit_eve.importing.checkpoint import fill, read_config, read_tensors
from lit_eve.importing.saved_text import PROCESSOR, saved_text
from lit_eve.schema import load
from lit_eve.schema.writing import to_yaml

STAGE = "imported"
PREFIXES = {"lit_eve": "model.", "lit_eve_image_tokenizer": "tokenizer."}
"""Model type of an export -> what its names of tensors begin with."""


def is_export(folder: Path) -> bool:
    """Whether a folder is one that `lit-eve export` wrote."""
    return (folder / "config.json").is_file() and _type_of(folder) in PREFIXES


def read_exported(folder: Path) -> dict[str, Tensor]:
    """The weights of an exported model, by this platform's names; tied ones under all of theirs.

    Raises:
        ValueError: if the folder is no export, is not whole, or was written by a newer version.
    """
    kind = _type_of(folder)
    if kind not in PREFIXES:
        raise ValueError(
            f"{folder} is no model that `lit-eve export` wrote: its config.json says {kind!r}. "
            "Import it with the verb of its kind; see `lit-eve import --help`."
        )
    prefix = PREFIXES[kind]
    with torch.device("meta"):
        own = _shape(folder).state_dict(keep_vars=True)
    taken = {n.removeprefix(prefix): (n, tensor) for n, tensor in read_tensors(folder).items()}
    holder = {id(own[name]): name for name in taken if name in own}
    for name, tensor in own.items():
        if name not in taken and id(tensor) in holder:
            taken[name] = taken[holder[id(tensor)]]
    return fill(own, taken, folder)


def import_exported(source: Path, target: Path) -> None:
    """Write an exported model as a folder that works like a finished run's.

    Args:
        source: that `lit-eve export` wrote.
        target: the folder to write; must not exist.

    Raises:
        ValueError: if the target exists, or the source is no whole export.
    """
    if target.exists():
        raise ValueError(f"{target} exists: an import does not overwrite. Name another folder.")
    weights = read_exported(source)
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of an import that was interrupted
    try:
        (partial / STAGE).mkdir(parents=True)
        write_weights(partial / STAGE / "model.safetensors", weights)
        experiment = _experiment(read_config(source), target.absolute(), partial)
        if (source / PROCESSOR).is_file():
            _write_text(source, partial, experiment["model"])
        summary = {"state": "finished", "steps": 0, "samples": 0, "seconds": 0.0}
        (partial / STAGE / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
        file = partial / "experiment.yaml"
        file.write_text(to_yaml(experiment), encoding="utf-8")
        load(file)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _shape(folder: Path) -> nn.Module:
    """The model of a folder; on the meta device it takes no memory."""
    from lit_eve.hub.building import build, build_image_tokenizer
    from lit_eve.hub.configuration import ImageTokenizerConfig

    config = AutoConfig.from_pretrained(folder)
    if isinstance(config, ImageTokenizerConfig):
        return build_image_tokenizer(config)
    return build(config)


def _type_of(folder: Path) -> str:
    return str(read_config(folder).get("model_type"))


def _experiment(config: Any, target: Path, partial: Path) -> dict[str, Any]:
    """The experiment whose finished run the folder is; settings of pretrained parts are written."""
    model: dict[str, Any] = config["experiment"]
    for part, settings in (config.get("shapes") or {}).items():
        (partial / part).mkdir()
        (partial / part / "config.json").write_text(json.dumps(settings, indent=1))
        model[part]["from"] = str(target / part)
    if model.get("text"):
        model["text"] = {"type": "saved", "from": str(target / "text")}
    return {
        "name": re.sub(r"[^A-Za-z0-9_-]", "-", target.name).lstrip("-_") or STAGE,
        "question": "What does this exported model know, and what does it learn on top?",
        "model": model,
        "datasets": {"scenes": {"type": "scenes"}},
        "stages": {STAGE: {"do": "load", "weights": str(target / STAGE / "model.safetensors")}},
    }


def _write_text(source: Path, partial: Path, model: dict[str, Any]) -> None:
    """The text tokenizer, for this run and for others that start from its pretrained decoder."""
    text = saved_text(source)
    text.save(partial / "text")
    if model["language_model"]["type"] == "pretrained":
        text.save(partial / "language_model")
