"""A teacher's features of the pictures of a dataset, computed once and kept beside them.

They are a prepared dataset of their own, in a folder of the dataset they belong to: sample n holds,
for every picture of sample n there, a grid of features as 16-bit numbers.

Shapes: rows, columns of the teacher's cells, D its width.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lit_eve_data.disk.manifest import NAME, Manifest, read_manifest
from lit_eve_data.disk.reading import RecordStore, RecordView
from lit_eve_data.disk.records import BadSampleError, StoredImage

Features = NDArray[np.float16]
FORMAT = "float16"


def features_folder(dataset: Path, teacher: str, layer: int) -> Path:
    """Where the features of a teacher belong.

    Args:
        dataset: the dataset's folder.
        teacher: its name or path.
        layer: the hidden state.
    """
    plain = re.sub(r"[^A-Za-z0-9.]+", "-", teacher).strip("-")
    return dataset / "features" / f"{plain}.layer{layer}"


def stored(features: Features) -> StoredImage:
    """A picture's features, (rows, columns, D), as a record holds them."""
    return StoredImage(features.shape[0], features.shape[1], FORMAT, features.tobytes())


def are_of(features: Path, manifest: Manifest) -> bool:
    """Whether there are features, and of that very dataset."""
    if not (features / NAME).is_file():
        return False
    return bool(read_manifest(features).source.get("of") == manifest.fingerprint)


class StoredTeacher:
    """The features of one split.

    Args:
        view: samples of the dataset.
        teacher: name or path of the teacher.
        layer: the hidden state.

    Raises:
        ValueError: if they were not computed, or of another state of the dataset.
    """

    def __init__(self, view: RecordView, teacher: str, layer: int) -> None:
        store = view.store
        folder = features_folder(store.directory, teacher, layer)
        if not are_of(folder, store.manifest):
            raise ValueError(
                f"{store.directory} holds no features of {teacher}, layer {layer}, that belong to "
                "its pictures. Compute them: lit-eve prepare SOURCE --to "
                f"{store.directory} --teacher {teacher} --teacher-layer {layer}; or take `stored` "
                "out of the teacher, which then runs in every step."
            )
        self._indices = view.indices
        self._store = RecordStore(folder, store.split)

    def of(self, place: int, num_images: int) -> list[Features]:
        """Of the pictures of the sample at `place` of the view, (rows, columns, D) each.

        Raises:
            BadSampleError: if there is another number of them.
        """
        images = self._store[int(self._indices[place])].images
        if len(images) != num_images:
            raise BadSampleError(
                "features", f"{len(images)} pictures have features, the sample has {num_images}."
            )
        return [
            np.frombuffer(image.data, np.float16).reshape(image.height, image.width, -1)
            for image in images
        ]
