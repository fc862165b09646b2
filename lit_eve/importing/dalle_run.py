"""OpenAI's released dVAE as a folder that works like a finished run.

TARGET/experiment.yaml              the model, of the size that the tensors have
TARGET/imported/model.safetensors   all weights, by this platform's names
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

from lit_eve.checkpoints.weights import write_weights
from lit_eve.importing.dalle_dvae import DalleSize, build, read_released, size_of
from lit_eve.schema import load
from lit_eve.schema.writing import to_yaml

STAGE = "imported"


def import_dalle_dvae(encoder: Path, decoder: Path, target: Path) -> DalleSize:
    """Write the released tensors as a folder that `encode`, `decode` and `evaluate` read.

    Args:
        encoder: `encoder.pkl`, or its state dict; nothing in it is executed.
        decoder: `decoder.pkl`, likewise.
        target: the folder to write; must not exist.

    Raises:
        ValueError: if the files are not a dVAE's, or the target exists.
    """
    if target.exists():
        raise ValueError(f"{target} exists: an import does not overwrite. Name another folder.")
    parts = read_released(encoder), read_released(decoder)
    size, tokenizer = size_of(*parts), build(*parts)
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of an import that was interrupted
    try:
        (partial / STAGE).mkdir(parents=True)
        write_weights(partial / STAGE / "model.safetensors", tokenizer.state_dict())
        summary = {"state": "finished", "steps": 0, "samples": 0, "seconds": 0.0}
        (partial / STAGE / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
        file = partial / "experiment.yaml"
        file.write_text(to_yaml(_experiment(target.absolute(), size)), encoding="utf-8")
        load(file)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return size


def _experiment(target: Path, size: DalleSize) -> dict[str, Any]:
    """The experiment whose finished run the folder is."""
    weights = str(target / STAGE / "model.safetensors")
    return {
        "name": re.sub(r"[^A-Za-z0-9_-]", "-", target.name).lstrip("-_") or STAGE,
        "question": "What do the codes of the released dVAE keep of a picture?",
        "model": {
            "type": "tokenizer",
            "encoder": {"type": "dalle", "width": size.width, "blocks": size.blocks},
            "quantizer": {
                "type": "gumbel",
                "codes": size.num_codes,
                "width": size.code_width,
                "temperature": 1 / 16,
                "kl": 6.6,
            },
            "likelihood": "logit_laplace",
        },
        "datasets": {"scenes": {"type": "scenes"}},
        "stages": {STAGE: {"do": "load", "weights": weights}},
    }
