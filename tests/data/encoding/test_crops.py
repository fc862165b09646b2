from __future__ import annotations

from random import Random

import numpy as np
import pytest

from lit_eve_data.encoding.crops import Crop, framed
from lit_eve_data.encoding.images import Native, resize


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def test_for_evaluation_the_middle_of_the_scaled_picture_is_kept() -> None:
    picture = noise(40, 60)
    assert np.array_equal(Crop(20, (1.5, 2.0)).cut(picture, None), resize(picture, 20, 30)[:, 5:25])


def test_unscaled_crops_are_pieces_of_the_picture_everywhere_in_it() -> None:
    picture = noise(20, 30)
    places = set()
    for seed in range(60):
        cut = Crop(20).cut(picture, Random(seed))
        (place,) = (x for x in range(11) if np.array_equal(cut, picture[:, x : x + 20]))
        places.add(place)
    assert places == set(range(11))


# A gradient of one level a pixel, whose slope in the crop tells how much it was scaled:
# shorter edges of 36 to 48 out of 64 keep 64 / 48 to 64 / 36 levels a pixel.
def test_zoom_is_drawn_between_its_bounds() -> None:
    ramp = np.broadcast_to(np.arange(0, 192, 3).astype(np.uint8)[:, None, None], (64, 64, 3))
    crop, slopes = Crop(32, (1.125, 1.5)), []
    for seed in range(80):
        cut = crop.cut(ramp, Random(seed))[4:-4, 0, 0].astype(float)
        slopes.append((cut[-1] - cut[0]) / (len(cut) - 1) / 3)
    assert min(slopes) == pytest.approx(64 / 48, rel=0.03)
    assert max(slopes) == pytest.approx(64 / 36, rel=0.03)


def test_small_pictures_are_enlarged_to_the_edge_and_no_further() -> None:
    picture = noise(16, 16)
    for seed in range(5):
        cut = Crop(32, (1.125, 1.5)).cut(picture, Random(seed))
        assert np.array_equal(cut, resize(picture, 32, 32))


def test_half_of_the_pictures_are_mirrored_where_asked() -> None:
    picture = noise(8, 8)
    mirrored = [
        np.array_equal(Crop(8, flip=True).cut(picture, Random(seed)), picture[:, ::-1])
        for seed in range(200)
    ]
    assert 80 <= sum(mirrored) <= 120
    assert np.array_equal(Crop(8, flip=True).cut(picture, None), picture)


def test_framing_follows_the_policy() -> None:
    picture = noise(17, 30)
    assert framed(picture, Native(), 8).shape == (16, 32, 3)
    for random in (Random(1), None):
        seen = framed(picture, Crop(16), 8, random)
        assert np.array_equal(seen, Crop(16).cut(picture, random and Random(1)))
