"""What can be prepared: a source has splits of numbered inputs and makes a record of each.

A source is described by plain JSON, so that the processes that prepare it can be told about it, and
makes the same record for the same number in any of them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, Protocol

from lit_eve_data import photos, questions, scenes
from lit_eve_data.digits import SPLITS, Split
from lit_eve_data.photos import PhotosOptions, crop
from lit_eve_data.records import Sample, StoredImage, encode
from lit_eve_data.scenes import Scene, ScenesOptions, compose, scene_random


class Source(Protocol):
    """Numbered inputs in splits."""

    def description(self) -> dict[str, Any]:
        """Plain JSON from which `source_from` makes the source again."""
        ...

    def splits(self) -> Mapping[str, int]:
        """How many inputs each split has."""
        ...

    def record(self, split: str, index: int) -> bytes:
        """The record of an input.

        Raises:
            BadSampleError: if the input cannot be used, with the reason.
        """
        ...


class ScenesSource:
    """Composed scenes, see `scenes`; the order of their numbers is already random."""

    def __init__(self, options: ScenesOptions) -> None:
        self.options = options

    def description(self) -> dict[str, Any]:
        """The options, and the version of the program that understands them."""
        return {
            "type": "scenes",
            "version": scenes.GENERATOR_VERSION,
            "options": asdict(self.options),
        }

    def splits(self) -> Mapping[str, int]:
        """Scenes of every split."""
        return {split: getattr(self.options, split) for split in SPLITS}

    def record(self, split: str, index: int) -> bytes:
        """Scene number `index` of a split."""
        return encode(scene_sample(self.options, _split(split), index)[0])


class PhotosSource:
    """Crops of photographs, see `photos`."""

    def __init__(self, options: PhotosOptions) -> None:
        self.options = options

    def description(self) -> dict[str, Any]:
        """The options, and the version of the program that understands them."""
        return {
            "type": "photos",
            "version": photos.GENERATOR_VERSION,
            "options": asdict(self.options),
        }

    def splits(self) -> Mapping[str, int]:
        """Crops of every split."""
        return {split: getattr(self.options, split) for split in SPLITS}

    def record(self, split: str, index: int) -> bytes:
        """Crop number `index` of a split, a picture without text."""
        pixels = crop(self.options, _split(split), index)
        return encode(Sample(f"{split}/{index}", "image/photo", [], [StoredImage.raw(pixels)]))


def scene_sample(options: ScenesOptions, split: Split, index: int) -> tuple[Sample, Scene]:
    """A scene and the sample made of it."""
    random = scene_random(options, split, index)
    scene = compose(options, split, random)
    kind, turns = questions.write(scene, options.kinds, random)
    image = StoredImage.raw(scene.pixels)
    sample = Sample(f"{split}/{index}", kind, turns, [image], questions.facts(scene))
    return sample, scene


def source_from(description: Mapping[str, Any]) -> Source:
    """The source a description describes.

    Raises:
        ValueError: if it is of an unknown type or was written by another version.
    """
    known: dict[str, tuple[int, Callable[[dict[str, Any]], Source]]] = {
        "scenes": (scenes.GENERATOR_VERSION, lambda o: ScenesSource(ScenesOptions(**o))),
        "photos": (photos.GENERATOR_VERSION, lambda o: PhotosSource(PhotosOptions(**o))),
    }
    kind = description.get("type")
    if kind not in known:
        raise ValueError(f"unknown type of source {kind!r}: known are {', '.join(known)}.")
    version, make = known[kind]
    if description["version"] != version:
        raise ValueError(
            f"the {kind} were described by version {description['version']}, this program makes "
            f"version {version}: prepare them again."
        )
    options = description["options"].items()
    return make({key: tuple(v) if isinstance(v, list) else v for key, v in options})


def fingerprint(source: Source) -> str:
    """Names the dataset a source makes: the same description, the same name."""
    text = json.dumps(source.description(), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _split(name: str) -> Split:
    for split in SPLITS:
        if split == name:
            return split
    raise ValueError(f"scenes have no split {name!r}: choose among {', '.join(SPLITS)}.")
