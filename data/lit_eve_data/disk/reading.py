"""Prepared datasets, sample by sample: LitData's chunks behind a manifest.

Samples are stored in a random order fixed when they were prepared, so neighbours are unrelated and
reading window by window is both local and well mixed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lit_eve_data.disk.elsewhere import ChunkSource
from lit_eve_data.disk.manifest import INDEX, Manifest, read_manifest
from lit_eve_data.disk.records import IMAGE, Sample, decode
from lit_eve_data.disk.sidecar import Sidecar, joined, read_sidecar

if TYPE_CHECKING:
    from litdata import StreamingDataset  # type: ignore[import-untyped]


class RecordStore:
    """One split of a prepared dataset, by index.

    Args:
        directory: the dataset, with its manifest.
        split: `train`, `val` or `test`.

    Raises:
        ValueError: if the dataset is not a whole one or has no such split.
    """

    def __init__(self, directory: Path | str, split: str = "train") -> None:
        self.directory = Path(directory)
        self.split = split
        self.manifest: Manifest = read_manifest(self.directory)
        if split not in self.manifest.splits:
            raise ValueError(
                f"{directory} has no split {split!r}: it has {', '.join(self.manifest.splits)}."
            )
        parts = [part for part in self.manifest.parts if split in part.splits]
        self._folders = [self.directory / part.folder / split for part in parts]
        facts = [read_sidecar(folder) for folder in self._folders]
        self.sidecar: Sidecar = facts[0] if len(facts) == 1 else joined(facts)
        self._first = np.cumsum([0, *map(len, facts)])  # where each folder's samples begin
        self._opened: dict[int, StreamingDataset] = {}
        self._process = 0
        self._source = ChunkSource.of(self.directory, self.manifest)

    def __len__(self) -> int:
        return len(self.sidecar)

    def __getitem__(self, index: int) -> Sample:
        """The sample at `index`.

        Raises:
            BadSampleError: if its bytes are damaged.
            IndexError: if there is no such sample.
        """
        return decode(self.read(index))

    def read(self, index: int) -> bytes:
        """The blob at `index`, as bytes of its own: a view into a chunk must not leave here."""
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        if self._process != os.getpid():  # a view never survives a fork
            self._opened, self._process = {}, os.getpid()
        folder = int(np.searchsorted(self._first, index, "right")) - 1
        if folder not in self._opened:
            self._opened[folder] = _open(self._folders[folder])
        within = index - int(self._first[folder])
        if self._source is None:
            return bytes(self._opened[folder][within])
        with self._source.present(self._chunk_files[self.sidecar.chunk[index]]):
            return bytes(self._opened[folder][within])

    @property
    def is_elsewhere(self) -> bool:
        """Whether chunks are fetched when they are needed."""
        return self._source is not None

    @cached_property
    def _chunk_files(self) -> list[str]:
        """The file of each chunk, below the dataset."""
        names = []
        for folder in self._folders:
            index = json.loads((folder / INDEX).read_bytes())
            above = folder.relative_to(self.directory)
            names += [(above / chunk["filename"]).as_posix() for chunk in index["chunks"]]
        return names

    def fetch_ahead(self, indices: Sequence[int]) -> None:
        """Begin to fetch what these samples need and is not here, in the background."""
        if self._source is not None:
            chunks = dict.fromkeys(self.sidecar.chunk[list(indices)].tolist())
            self._source.fetch_ahead([self._chunk_files[chunk] for chunk in chunks])

    @cached_property
    def view(self) -> RecordView:
        """All samples."""
        return RecordView(self, np.arange(len(self)))

    def subset(self, name: str) -> RecordView:
        """The samples of some kinds.

        Args:
            name: a whole kind (`question/read`), its last word (`read`), or its first word in
                singular or plural (`questions`).

        Raises:
            ValueError: if no kind is called that, with those there are.
        """
        chosen = [kind for kind in self.sidecar.kinds if _is_called(kind, name)]
        if not chosen:
            families = {kind.split("/")[0] + "s" for kind in self.sidecar.kinds}
            words = {kind.rsplit("/", 1)[-1] for kind in self.sidecar.kinds}
            raise ValueError(
                f"{self.directory.name} has no subset {name!r}: choose among "
                f"{', '.join(sorted(families | words))}."
            )
        codes = [self.sidecar.kinds.index(kind) for kind in chosen]
        return RecordView(self, np.flatnonzero(np.isin(self.sidecar.kind, codes)))

    def questions(self, kind: str, count: int) -> list[Sample]:
        """The first `count` samples of a kind, the same ones every time."""
        return [self[index] for index in self.subset(kind).indices[:count].tolist()]

    def texts(self, count: int) -> Iterator[str]:
        """The words of the first `count` samples, to learn a vocabulary from."""
        for index in range(min(count, len(self))):
            for turn in self[index].turns:
                yield turn["content"].replace(IMAGE, " ")

    def __getstate__(self) -> dict[str, Any]:
        """Workers open the chunks themselves."""
        return {**self.__dict__, "_opened": {}}


@dataclass(frozen=True)
class RecordView:
    """Some samples of a store, in stored order."""

    store: RecordStore
    indices: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, place: int) -> Sample:
        """The sample at `place` of the view."""
        return self.store[int(self.indices[place])]

    def fetch_ahead(self, places: Sequence[int]) -> None:
        """Begin to fetch what these samples need and is not here, in the background."""
        self.store.fetch_ahead(self.indices[list(places)].tolist())

    @property
    def chunk(self) -> NDArray[np.int64]:
        """(N,) the chunk each sample lies in."""
        return self.store.sidecar.chunk[self.indices]


def _is_called(kind: str, name: str) -> bool:
    family, last = kind.split("/")[0], kind.rsplit("/", 1)[-1]
    return name in (kind, last, family, family + "s")


def _open(directory: Path) -> StreamingDataset:
    """LitData's random access to a checked directory, with everything that runs code refused."""
    from litdata import StreamingDataset
    from litdata.streaming.serializers import Serializer  # type: ignore[import-untyped]

    class Refuse(Serializer):  # type: ignore[misc]
        """In place of the serializers that execute what they read."""

        def serialize(self, item: Any) -> tuple[bytes, str | None]:
            raise TypeError("datasets hold no Python objects")

        def deserialize(self, data: bytes) -> Any:
            raise RuntimeError("refusing to unpickle data from a dataset")

        def can_serialize(self, data: Any) -> bool:
            return False

    refused = {"pickle": Refuse(), "graph": Refuse()}
    return StreamingDataset(
        str(directory), shuffle=False, drop_last=False, batch_decode=0, serializers=refused
    )
