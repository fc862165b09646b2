"""What can be prepared: a source has splits of numbered inputs and makes a record of each.

A source is described by plain JSON, so that the processes that prepare it can be told about it, and
makes the same record for the same number in any of them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Protocol

from lit_eve_data import questions
from lit_eve_data.digits import SPLITS, Split
from lit_eve_data.records import Sample, StoredImage, encode
from lit_eve_data.scenes import GENERATOR_VERSION, Scene, ScenesOptions, compose, scene_random


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
        return {"type": "scenes", "version": GENERATOR_VERSION, "options": asdict(self.options)}

    def splits(self) -> Mapping[str, int]:
        """Scenes of every split."""
        return {split: self.options.count(split) for split in SPLITS}

    def record(self, split: str, index: int) -> bytes:
        """Scene number `index` of a split."""
        return encode(scene_sample(self.options, _split(split), index)[0])


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
    if description.get("type") != "scenes":
        raise ValueError(f"unknown type of source {description.get('type')!r}: known is scenes.")
    if description["version"] != GENERATOR_VERSION:
        raise ValueError(
            f"the scenes were described by version {description['version']}, this program draws "
            f"version {GENERATOR_VERSION}: prepare them again."
        )
    options: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in description["options"].items()
    }
    return ScenesSource(ScenesOptions(**options))


def fingerprint(source: Source) -> str:
    """Names the dataset a source makes: the same description, the same name."""
    text = json.dumps(source.description(), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _split(name: str) -> Split:
    for split in SPLITS:
        if split == name:
            return split
    raise ValueError(f"scenes have no split {name!r}: choose among {', '.join(SPLITS)}.")
