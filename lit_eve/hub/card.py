"""The model card of an exported run: what it is, how good it is, how to use it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from math import isnan
from pathlib import Path
from typing import Any

import yaml

from lit_eve import __version__
from lit_eve.running.directory import RunDirectory
from lit_eve.schema import Experiment

CARD = "README.md"

_USE = """```python
import lit_eve  # makes the model known to Transformers
from transformers import AutoModelForImageTextToText, AutoProcessor

processor = AutoProcessor.from_pretrained("{name}")
model = AutoModelForImageTextToText.from_pretrained("{name}")
messages = [{{"role": "user", "content": [
    {{"type": "image", "path": "picture.png"}},
    {{"type": "text", "text": "What is here?"}},
]}}]
inputs = processor.apply_chat_template(messages, tokenize=True)
answer = model.generate(**inputs, max_new_tokens=64)
print(processor.decode(answer[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True))
```"""

_USE_TOKENIZER = """```python
import lit_eve  # makes the model known to Transformers
from transformers import AutoImageProcessor, AutoModel

processor = AutoImageProcessor.from_pretrained("{name}")
tokenizer = AutoModel.from_pretrained("{name}")
codes = tokenizer.encode(processor("picture.png")["pixel_values"])
picture = tokenizer.decode(codes)  # (1, 3, H, W) in [0, 1]
```"""


def model_card(directory: RunDirectory, experiment: Experiment, stage: str, file: Path) -> str:
    """A README with the metadata block that the hub reads.

    Args:
        directory: the run.
        experiment: of the run.
        stage: whose weights are exported.
        file: that they come from.
    """
    final = file == directory.weights(stage)
    source = "Final weights" if final else f"Weights of checkpoint `{file.name}`"
    tokenizer = experiment.model.type == "tokenizer"
    about = {
        "library_name": "transformers",
        "pipeline_tag": "image-feature-extraction" if tokenizer else "image-text-to-text",
        "tags": ["lit-eve", experiment.model.type],
    }
    parts = [
        f"---\n{yaml.safe_dump(about, sort_keys=False)}---\n# {experiment.name}",
        experiment.question or "",
        f"{source} of stage `{stage}`, run `{directory.id}` of experiment "
        f"`{experiment.name}`, exported by lit-eve {__version__}.",
        "## Figures",
        figure_table(figures(directory, stage, file)),
        "## Use",
        (_USE_TOKENIZER if tokenizer else _USE).format(name="FOLDER"),
        "## Experiment",
        f"```yaml\n{experiment.to_yaml().rstrip()}\n```",
        "## Environment",
        f"```json\n{_environment(directory)}\n```",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def figures(directory: RunDirectory, stage: str, file: Path) -> dict[str, float | int]:
    """Scores of a stage and what they cost, as its summary and its last evaluation have them.

    They are those of its final weights: a checkpoint in the middle has none of its own.
    """
    if file != directory.weights(stage):
        return {}
    summary = directory.summary(stage) or {}
    evaluation = directory.path / stage / "evaluation.json"
    scores: Mapping[str, float] = summary.get("scores", {})
    if evaluation.is_file():
        scores = {**scores, **json.loads(evaluation.read_text()).get("scores", {})}
    found: dict[str, float | int] = {f"held-out {name}": value for name, value in scores.items()}
    for key in ("val/loss", "steps", "samples", "tokens", "seconds"):
        if key in summary and not isnan(summary[key]):  # without a validation there is no loss
            found[key] = summary[key]
    return found


def figure_table(found: Mapping[str, float | int]) -> str:
    """Figures as Markdown."""
    if not found:
        return "These weights have not been examined: a run does that at the end of a stage."
    return "\n".join(["| figure | value |", "| --- | --- |", *_rows(found)])


def _rows(found: Mapping[str, float | int]) -> Iterator[str]:
    for name, value in found.items():
        yield f"| {name} | {value:,} |" if isinstance(value, int) else f"| {name} | {value:.4g} |"


def _environment(directory: RunDirectory) -> str:
    """Versions and code of the training; nothing of the machine."""
    file = directory.path / "environment.json"
    known: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
    git = known.get("git") or {}
    kept: dict[str, Any] = {"packages": known.get("packages", {})}
    kept["code"] = {key: git[key] for key in ("commit", "dirty") if key in git}
    return json.dumps(kept, indent=1)
