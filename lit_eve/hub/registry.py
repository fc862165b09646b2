"""An exported model in MLflow's model registry, ready for `mlflow models serve`."""

from __future__ import annotations

import base64
import io
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from PIL import Image

from lit_eve.hub.card import figure_table, figures
from lit_eve.hub.export import Exported
from lit_eve.hub.serving import IMAGES, PARAMETERS, PROMPT
from lit_eve.running.directory import RunDirectory
from lit_eve.running.syncing import store_of
from lit_eve.schema import VisionLanguageExperiment
from lit_eve.tracking.shipper import sync
from lit_eve.tracking.store import Store, connect, locate

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

NEEDED = ("lit-eve", "torch", "transformers", "tokenizers", "safetensors", "pillow")
"""Packages that answer a request."""
_TIMEOUT = "600"
"""Seconds that a server may take for a file of weights; tracking gives up after ten."""


@dataclass(frozen=True)
class Registered:
    """Where a model went."""

    store: Store
    name: str
    version: str

    @property
    def address(self) -> str:
        """What MLflow calls it."""
        return f"models:/{self.name}/{self.version}"


def store_for(directory: RunDirectory, uri: str | None) -> Store:
    """The store whose registry is meant.

    Raises:
        ValueError: if the run is in none and none is named.
    """
    address = uri or store_of(directory.path)
    if address is None:
        raise ValueError(
            "the experiment says `tracking: {type: none}`, so there is no registry. Name a store "
            "with --uri."
        )
    return locate(address)


def register(directory: RunDirectory, exported: Exported, name: str, store: Store) -> Registered:
    """Add an exported folder to the registry as the next version of a model.

    The run is sent to the store first; the model hangs on it.

    Args:
        directory: the run.
        exported: of it.
        name: of the model in the registry.
        store: see `store_for`.

    Raises:
        ValueError: if it is no vision-language model.
    """
    if not isinstance(exported.experiment, VisionLanguageExperiment):
        raise ValueError(
            f"{exported.experiment.name} is of type {exported.experiment.model.type}: what is "
            "served answers prompts. Register a vision-language model, or leave --register out."
        )
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", _TIMEOUT)
    os.environ.setdefault("MLFLOW_UV_AUTO_DETECT", "false")  # or it takes files of this folder
    client = connect(store)
    run_id = sync(directory.path, store.uri).run_id
    with warnings.catch_warnings(), _current(store):
        warnings.simplefilter("ignore")
        import mlflow

        info = mlflow.models.Model.log(
            artifact_path=None,
            name=exported.experiment.name,
            flavor=mlflow.pyfunc,
            loader_module="lit_eve.hub.serving",
            data_path=str(exported.folder),
            signature=signature(),
            input_example=example(),
            pip_requirements=[f"{package}=={version(package)}" for package in NEEDED],
            registered_model_name=name,
            run_id=run_id,
        )
    number = str(info.registered_model_version)
    client.update_model_version(name, number, description=_described(directory, exported))
    tags = {"run": directory.id, "stage": exported.stage, "weights": exported.file.name}
    for key, value in tags.items():
        client.set_model_version_tag(name, number, f"lit_eve.{key}", value)
    return Registered(store, name, number)


def signature() -> ModelSignature:
    """What a request holds and what comes back."""
    from mlflow.models import ModelSignature
    from mlflow.types.schema import Array, ColSpec, DataType, ParamSchema, ParamSpec, Schema

    kinds = {int: DataType.long, float: DataType.double}
    specs = [ParamSpec(key, kinds[type(value)], value) for key, value in PARAMETERS.items()]
    columns = [
        ColSpec(DataType.string, PROMPT),
        ColSpec(Array(DataType.string), IMAGES, required=False),
    ]
    return ModelSignature(
        Schema(columns),  # type: ignore[arg-type]  # a list is invariant
        Schema([ColSpec(DataType.string)]),
        ParamSchema(specs),
    )


def example() -> Any:
    """A request of one row, as a data frame."""
    import pandas as pd  # type: ignore[import-untyped]  # comes with MLflow

    file = io.BytesIO()
    Image.new("RGB", (32, 32), "white").save(file, "PNG")
    picture = base64.b64encode(file.getvalue()).decode()
    return pd.DataFrame({PROMPT: ["What is here?"], IMAGES: [[picture]]})


def _described(directory: RunDirectory, exported: Exported) -> str:
    table = figure_table(figures(directory, exported.stage, exported.file))
    return f"{exported.experiment.question or exported.experiment.name}\n\n{table}"


@contextmanager
def _current(store: Store) -> Iterator[None]:
    """MLflow's own idea of the store, which its way of logging models goes by."""
    import mlflow

    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(store.uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)
