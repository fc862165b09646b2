"""A teacher's features of all pictures of a dataset, computed once."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lit_eve_data.disk.features import Features, are_of, features_folder, stored
from lit_eve_data.disk.manifest import read_manifest
from lit_eve_data.disk.reading import RecordStore
from lit_eve_data.disk.records import BadSampleError, Pixels, Sample, encode
from lit_eve_data.preparing.writing import WritingOptions, write_dataset

Compute = Callable[[Sequence[Pixels]], list[Features]]
"""Pictures (H, W, 3) to features (rows, columns, D) of each."""
_TOGETHER = 16  # samples whose pictures the teacher sees at once
Entry = tuple[str, int]
"""Split and number of a sample."""


@dataclass
class _FeatureSource:
    """The samples of a dataset in their order, as a source of features."""

    stores: Mapping[str, RecordStore]
    about: Mapping[str, Any]
    compute: Compute
    _made: dict[Entry, bytes] = field(default_factory=dict)

    def description(self) -> dict[str, Any]:
        return dict(self.about)

    def splits(self) -> Mapping[str, Sequence[Entry]]:
        return {
            name: [(name, number) for number in range(len(store))]
            for name, store in self.stores.items()
        }

    @property
    def maker(self) -> _FeatureSource:
        return self

    def name(self, entry: Entry) -> str:
        return f"{entry[0]}/{entry[1]}"

    def __call__(self, entry: Entry) -> bytes:
        if entry not in self._made:
            split, first = entry
            last = min(first + _TOGETHER, len(self.stores[split]))
            self._made = self._make([(split, number) for number in range(first, last)])
        return self._made.pop(entry)

    def _make(self, entries: Sequence[Entry]) -> dict[Entry, bytes]:
        """Records of some samples; one that cannot be decoded has none, as in training."""
        pixels: list[list[Pixels]] = []
        for split, number in entries:
            try:
                images = self.stores[split][number].images
                pixels.append([image.pixels() for image in images])
            except BadSampleError:
                pixels.append([])
        found = iter(self.compute([image for images in pixels for image in images]))
        return {
            entry: encode(
                Sample(self.name(entry), "features", [], [stored(next(found)) for _ in images])
            )
            for entry, images in zip(entries, pixels, strict=True)
        }


def write_features(
    dataset: Path,
    teacher: str,
    layer: int,
    compute: Compute,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Compute the features of a dataset's pictures, unless they are there; returns their folder.

    Interrupted, it goes on at its last finished chunk. Features of a dataset that was appended to
    are computed anew.

    Args:
        dataset: a whole one.
        teacher: what it is called in experiments.
        layer: the hidden state.
        compute: the teacher.
        progress: called with samples dealt with and samples in all.

    Raises:
        ValueError: if `dataset` is no whole dataset.
    """
    manifest = read_manifest(dataset)
    folder = features_folder(dataset, teacher, layer)
    if are_of(folder, manifest):
        return folder
    about = {"type": "features", "teacher": teacher, "layer": layer, "of": manifest.fingerprint}
    partial = folder.with_name(f".{folder.name}.{manifest.fingerprint[:12]}.partial")
    partial.mkdir(parents=True, exist_ok=True)
    stores = {name: RecordStore(dataset, name) for name in manifest.splits}
    write_dataset(_FeatureSource(stores, about, compute), partial, WritingOptions(0), progress)
    if folder.exists():
        shutil.rmtree(folder)
    partial.rename(folder)
    return folder
