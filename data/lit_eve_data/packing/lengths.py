"""How many slots every sample takes: visual tokens from its sizes, text tokens counted once.

Text is counted once per tokenizer and kept beside the data (or in the user's cache if that is
read-only); visual tokens follow from the image sizes, so another size policy costs nothing.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lit_eve_data.disk.elsewhere import cache_folder
from lit_eve_data.disk.reading import RecordStore, RecordView
from lit_eve_data.disk.records import BadSampleError, decode_header
from lit_eve_data.encoding.images import ImageCutter
from lit_eve_data.encoding.text import ChatText, Encoded
from lit_eve_data.packing.plan import SourceLengths
from lit_eve_data.packing.rows import Item, make_item

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class SampleEncoder:
    """What turns samples into items, and knows their lengths beforehand."""

    text: ChatText
    cutter: ImageCutter

    def item(self, view: RecordView, place: int) -> Item:
        """Read, decode and encode one sample.

        Raises:
            BadSampleError: if it cannot be used.
        """
        sample = view[place]
        try:
            return make_item(sample, self.text, self.cutter)
        except BadSampleError:
            raise
        except ValueError as error:
            raise BadSampleError("turns", f"sample {sample.id!r}: {error}") from error

    def lengths(
        self, name: str, view: RecordView, weight: float, progress: Progress | None = None
    ) -> SourceLengths:
        """The lengths of a view's samples, for the plan.

        Args:
            name: of the dataset in the mixture.
            view: the samples.
            weight: of the dataset in the mixture.
            progress: called with samples counted and samples in all, if they must be counted.
        """
        text = text_lengths(view.store, self.text, progress)[view.indices]  # (N, 2)
        visual = visual_lengths(view.store, self.cutter)[view.indices]  # (N,)
        images = view.store.sidecar.num_images[view.indices]  # (N,)
        return SourceLengths(name, weight, text[:, 0] + visual, text[:, 1], images, view.chunk)


class TextEncoder(SampleEncoder):
    """Texts of samples without their pictures, every token supervised: for a decoder alone."""

    def item(self, view: RecordView, place: int) -> Item:
        """Read and encode one sample; its pictures take no slot.

        Raises:
            BadSampleError: if it cannot be used.
        """
        sample = view[place]
        try:
            encoded = self.text.encode(sample.turns, [0] * len(sample.images))
        except ValueError as error:
            raise BadSampleError("turns", f"sample {sample.id!r}: {error}") from error
        return Item(Encoded(encoded.ids, [(1, len(encoded))], []), [], sample.kind)

    def lengths(
        self, name: str, view: RecordView, weight: float, progress: Progress | None = None
    ) -> SourceLengths:
        """The lengths of a view's samples, for the plan; the first token is never supervised."""
        tokens = text_lengths(view.store, self.text, progress)[view.indices, 0]  # (N,)
        supervised, images = np.maximum(tokens - 1, 0), np.zeros_like(tokens)
        return SourceLengths(name, weight, tokens, supervised, images, view.chunk)


def visual_lengths(store: RecordStore, cutter: ImageCutter) -> NDArray[np.int64]:
    """(N,) visual tokens of every sample of a store."""
    sizes, which = np.unique(store.sidecar.sizes, axis=0, return_inverse=True)
    tokens = np.array([cutter.num_tokens(h, w) for h, w in sizes.tolist()], np.int64)
    per_image = tokens[which.reshape(-1)] if len(sizes) else np.zeros(0, np.int64)
    total = np.concatenate([np.zeros(1, np.int64), np.cumsum(per_image)])
    first = store.sidecar.first_image
    return np.asarray(total[first[1:]] - total[first[:-1]], np.int64)


def text_lengths(
    store: RecordStore, text: ChatText, progress: Progress | None = None
) -> NDArray[np.int64]:
    """(N, 2) text tokens and supervised tokens of every sample; counted once per tokenizer.

    A sample that cannot be encoded counts as no tokens: it is reported when it is drawn.
    """
    name = f"lengths-{store.manifest.digest(store.split)[:12]}-{text.fingerprint()}.npy"
    places = (store.directory / store.split / name, cache_folder() / "lengths" / name)
    for path in places:
        if path.is_file():
            known = np.load(path, allow_pickle=False)
            if known.shape == (len(store), 2):
                return np.asarray(known, np.int64)
    counted = _count(store, text, progress)
    for path in places:
        if _save(path, counted):
            break
    return counted


def _count(store: RecordStore, text: ChatText, progress: Progress | None) -> NDArray[np.int64]:
    lengths = np.zeros((len(store), 2), np.int64)
    for index in range(len(store)):
        try:
            header = decode_header(store.read(index))
            encoded = text.encode(header["turns"], [0] * len(header["images"]))
        except (ValueError, KeyError, TypeError, struct.error):
            continue
        lengths[index, 0] = len(encoded)
        lengths[index, 1] = sum(stop - start for start, stop in encoded.answers)
        if progress is not None and (index % 256 == 255 or index == len(store) - 1):
            progress(index + 1, len(store))
    return lengths


def _save(path: Path, lengths: NDArray[np.int64]) -> bool:
    """Write under another name and rename: several ranks may do this at once."""
    partial = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            np.save(file, lengths.astype(np.uint32))
        partial.replace(path)
    except OSError:  # a read-only dataset
        return False
    return True
