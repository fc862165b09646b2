"""What an experiment reads from elsewhere: models, text tokenizers, datasets, weights."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from functools import partial
from pathlib import Path

from pydantic import BaseModel

from lit_eve.assemble.addresses import name_or_path
from lit_eve.importing.saved_text import saved_text
from lit_eve.schema import Experiment
from lit_eve.schema.addresses import Address
from lit_eve.schema.datasets import LitDataSet
from lit_eve.schema.language_models import SavedText
from lit_eve.schema.training import Transform
from lit_eve_data.disk.manifest import read_manifest
from lit_eve_data.disk.stores import is_remote


def check_places(experiment: Experiment, finished: Container[str] = ()) -> None:
    """Say before work starts which of the places an experiment reads from are not there.

    Args:
        experiment: what is to run.
        finished: stages that will not run again, and need nothing.

    Raises:
        ValueError: naming all of them, each with its key in the file.
    """
    missing = []
    for key, check in _places(experiment, finished):
        try:
            check()
        except (ValueError, OSError) as error:
            missing.append(f"{key}: {error}")
    if missing:
        raise ValueError("\n".join(missing))


def _places(
    experiment: Experiment, finished: Container[str]
) -> Iterator[tuple[str, Callable[[], object]]]:
    """Keys of the file, and what raises unless their places are there."""
    for key, block in _blocks(experiment.model, "model"):
        source = getattr(block, "source", None)
        if isinstance(block, SavedText):
            yield f"{key}.from", partial(_text, block)
        elif isinstance(source, Address):
            yield f"{key}.from", partial(_model, source)
    for name, data in experiment.datasets.items():
        if isinstance(data, LitDataSet):
            yield f"datasets.{name}.path", partial(_dataset, data.path)
    for name, stage in experiment.stages.items():
        if isinstance(stage, Transform) and stage.weights is not None and name not in finished:
            yield f"stages.{name}.weights", partial(_weights, stage.weights)


def _blocks(block: BaseModel, key: str) -> Iterator[tuple[str, BaseModel]]:
    """A block of the file and all within it, by their keys."""
    yield key, block
    for name in type(block).model_fields:
        value = getattr(block, name)
        if isinstance(value, BaseModel):
            yield from _blocks(value, f"{key}.{name}")


def _model(source: Address) -> None:
    name_or_path(source.resolved())


def _text(options: SavedText) -> None:
    saved_text(Path(options.source.resolved()))


def _dataset(path: Address) -> None:
    if not is_remote(path.resolved()):
        read_manifest(Path(path.resolved()))


def _weights(file: Address) -> None:
    if not Path(file.resolved()).exists():
        raise ValueError(
            f"{file} is not there, so there are no weights to load. Give `model.safetensors` of a "
            "stage, or a folder that `lit-eve export` or `lit-eve import` wrote."
        )
