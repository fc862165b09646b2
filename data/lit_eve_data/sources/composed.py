"""The built-in sources, made from nothing but a seed: scenes and photo crops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lit_eve_data.builtin import photos, questions, scenes
from lit_eve_data.builtin.digits import SPLITS, Split
from lit_eve_data.builtin.photos import PhotosOptions, crop
from lit_eve_data.builtin.scenes import Scene, ScenesOptions, compose, scene_random
from lit_eve_data.disk.records import Sample, StoredImage, encode

Number = tuple[Split, int]
"""An input: its split and its number, whose order is already random."""


class ScenesSource:
    """Composed scenes, see `scenes`."""

    def __init__(self, options: ScenesOptions) -> None:
        self.options = options

    def description(self) -> dict[str, Any]:
        """The options, and the version of the program that understands them."""
        version = scenes.GENERATOR_VERSION
        return {"type": "scenes", "version": version, "options": asdict(self.options)}

    def splits(self) -> Mapping[str, Sequence[Number]]:
        """Scenes of every split."""
        return _numbered(self.options)

    @property
    def maker(self) -> SceneMaker:
        """Composes scenes."""
        return SceneMaker(self.options)


@dataclass(frozen=True)
class SceneMaker:
    """Composes scenes and writes about them."""

    options: ScenesOptions

    def __call__(self, entry: Number) -> bytes:
        """The record of a scene."""
        return encode(scene_sample(self.options, *entry)[0])

    def name(self, entry: Number) -> str:
        """Split and number."""
        return f"{entry[0]}/{entry[1]}"


class PhotosSource:
    """Crops of photographs, see `photos`."""

    def __init__(self, options: PhotosOptions) -> None:
        self.options = options

    def description(self) -> dict[str, Any]:
        """The options, and the version of the program that understands them."""
        version = photos.GENERATOR_VERSION
        return {"type": "photos", "version": version, "options": asdict(self.options)}

    def splits(self) -> Mapping[str, Sequence[Number]]:
        """Crops of every split."""
        return _numbered(self.options)

    @property
    def maker(self) -> PhotoMaker:
        """Cuts photographs."""
        return PhotoMaker(self.options)


@dataclass(frozen=True)
class PhotoMaker:
    """Cuts photographs: pictures without text."""

    options: PhotosOptions

    def __call__(self, entry: Number) -> bytes:
        """The record of a crop."""
        pixels = crop(self.options, *entry)
        return encode(Sample(self.name(entry), "image/photo", [], [StoredImage.raw(pixels)]))

    def name(self, entry: Number) -> str:
        """Split and number."""
        return f"{entry[0]}/{entry[1]}"


def scene_sample(options: ScenesOptions, split: Split, index: int) -> tuple[Sample, Scene]:
    """A scene and the sample made of it."""
    random = scene_random(options, split, index)
    scene = compose(options, split, random)
    kind, turns = questions.write(scene, options.kinds, random)
    image = StoredImage.raw(scene.pixels)
    sample = Sample(f"{split}/{index}", kind, turns, [image], questions.facts(scene))
    return sample, scene


def composed_from(description: Mapping[str, Any]) -> ScenesSource | PhotosSource:
    """The built-in source a description describes.

    Raises:
        ValueError: if it was written by another version.
    """
    kind, options = description["type"], description["options"].items()
    version = {"scenes": scenes.GENERATOR_VERSION, "photos": photos.GENERATOR_VERSION}[kind]
    if description["version"] != version:
        raise ValueError(
            f"the {kind} were described by version {description['version']}, this program makes "
            f"version {version}: prepare them again."
        )
    plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in options}
    if kind == "scenes":
        return ScenesSource(ScenesOptions(**plain))
    return PhotosSource(PhotosOptions(**plain))


def _numbered(options: ScenesOptions | PhotosOptions) -> dict[str, Sequence[Number]]:
    counts: dict[Split, int] = {split: getattr(options, split) for split in SPLITS}
    return {split: [(split, n) for n in range(count)] for split, count in counts.items() if count}
