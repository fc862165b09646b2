"""What an experiment file can name: every `type:` by family, and the files there are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, get_args

import yaml

from lit_eve.schema.alignments import Teacher
from lit_eve.schema.base import Strict
from lit_eve.schema.benchmark_data import Source
from lit_eve.schema.datasets import Dataset
from lit_eve.schema.experiment import Experiment
from lit_eve.schema.images import SizeOrCrop
from lit_eve.schema.language_models import LanguageModel, Text
from lit_eve.schema.metrics import Metric
from lit_eve.schema.patch_embeddings import PatchEmbedding
from lit_eve.schema.quantizers import Quantizer
from lit_eve.schema.running import Tracking
from lit_eve.schema.tokenizers import Encoder

FAMILIES: Mapping[str, Any] = {
    "models": tuple(kind.model_fields["model"].annotation for kind in Experiment.__subclasses__()),
    "language models": LanguageModel,
    "texts": Text,
    "connectors": PatchEmbedding,
    "teachers": Teacher,
    "encoders": Encoder,
    "quantizers": Quantizer,
    "picture sizes": SizeOrCrop,
    "datasets": Dataset,
    "questions": Source,
    "metrics": Metric,
    "tracking": Tracking,
}
"""Family -> its classes; a connector is what turns pixels into the decoder's tokens."""


_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # in C where it was built: ten times faster


class Entry(NamedTuple):
    """One thing that can be named."""

    name: str
    """What to write behind `type:`, or the file."""
    about: str


def types(family: str) -> list[Entry]:
    """What `type:` may say in a family, each with the first line of its description."""
    return [
        Entry(name, (block.__doc__ or "").strip().splitlines()[0])
        for block in _blocks(FAMILIES[family])
        for name in get_args(block.model_fields["type"].annotation)
    ]


def experiments(folder: Path) -> list[Entry]:
    """Experiment files below a folder, with the question each asks; broken ones are named too."""
    files = [file for file in sorted(folder.rglob("*.yaml")) if file.parent != folder / "tasks"]
    return [Entry(str(file), _said(file, "question")) for file in files]


def tasks(folder: Path) -> list[Entry]:
    """Evaluation tasks, with what each measures."""
    return [Entry(f.stem, _said(f, "about")) for f in sorted((folder / "tasks").glob("*.yaml"))]


def _blocks(annotation: Any) -> Iterator[type[Strict]]:
    """The classes of a union, in the order of the schema."""
    if isinstance(annotation, type):
        yield annotation
        return
    parts = annotation if isinstance(annotation, tuple) else get_args(annotation)
    for part in parts:
        if get_args(part) or (isinstance(part, type) and issubclass(part, Strict)):
            yield from _blocks(part)


def _said(file: Path, key: str) -> str:
    try:
        tree = yaml.load(file.read_text(encoding="utf-8"), _LOADER)
    except (OSError, yaml.YAMLError):
        return "cannot be read; `lit-eve check` says why"
    return str(tree.get(key) or "") if isinstance(tree, dict) else ""
