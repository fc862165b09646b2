from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lit_eve_data.builtin.photos import PhotosOptions, _photos, crop
from lit_eve_data.disk.reading import RecordStore
from lit_eve_data.preparing.writing import WritingOptions, write_dataset
from lit_eve_data.sources import PhotosSource, source_from

OPTIONS = PhotosOptions(train=12, val=3, test=2, sides=(32, 64))


def test_a_crop_depends_on_seed_split_and_index_only() -> None:
    assert np.array_equal(crop(OPTIONS, "train", 5), crop(OPTIONS, "train", 5))
    assert crop(OPTIONS, "train", 5).tobytes() != crop(OPTIONS, "train", 6).tobytes()
    assert crop(OPTIONS, "train", 5).tobytes() != crop(OPTIONS, "val", 5).tobytes()


def test_crops_have_whole_cells() -> None:
    shapes = {crop(OPTIONS, "test", index).shape for index in range(40)}
    assert shapes == {(h, w, 3) for h in (32, 48, 64) for w in (32, 48, 64)}


def test_held_out_parts_of_the_photographs_are_never_trained_on() -> None:
    widths = [_photos(split)[0].shape[1] for split in ("train", "val", "test")]
    assert widths == [448, 96, 96]
    assert sum(widths) == 640


def test_photos_are_prepared_like_everything_else(tmp_path: Any) -> None:
    write_dataset(PhotosSource(OPTIONS), tmp_path, WritingOptions(workers=0))
    store = RecordStore(tmp_path, "val")
    assert len(store) == 3
    assert store[1].turns == []
    assert np.array_equal(store[1].images[0].pixels(), crop(OPTIONS, "val", 1))
    assert isinstance(source_from(store.manifest.source), PhotosSource)


@pytest.mark.parametrize(
    ("change", "advice"),
    [
        ({"sides": (30, 64)}, "multiples of the cell"),
        ({"sides": (64, 32)}, "smaller first"),
        ({"sides": (32, 96)}, "need 144 px.*96 px wide"),
        ({"scale": (0.5, 1.0)}, "from 1 up"),
        ({"train": -1}, "can be negative"),
    ],
)
def test_impossible_options_say_what_to_change(change: dict[str, Any], advice: str) -> None:
    with pytest.raises(ValueError, match=advice):
        PhotosOptions(**change)
