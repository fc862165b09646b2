"""What can be prepared, one file for each kind of source."""

from lit_eve_data.sources.base import FileOptions, Maker, Source, fingerprint
from lit_eve_data.sources.composed import PhotosSource, ScenesSource, scene_sample
from lit_eve_data.sources.known import FILE_TYPES, source_at, source_from

__all__ = [
    "FILE_TYPES",
    "FileOptions",
    "Maker",
    "PhotosSource",
    "ScenesSource",
    "Source",
    "fingerprint",
    "scene_sample",
    "source_at",
    "source_from",
]
