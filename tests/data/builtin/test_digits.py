from __future__ import annotations

import numpy as np
import pytest

from lit_eve_data.builtin.digits import SPLITS, Split, bundled, load_scans


def test_every_scan_is_in_exactly_one_split() -> None:
    scans = [scan.tobytes() for split in SPLITS for scan in load_scans(split).ink]
    assert len(scans) == 1797
    # The corpus itself holds no two equal scans, so one that leaked would be counted twice.
    assert len(set(scans)) == 1797


# Counts of each digit as published with the corpus (UCI, optical recognition of digits, test set).
def test_all_digits_are_read() -> None:
    digits = np.concatenate([load_scans(split).digits for split in SPLITS])
    assert np.bincount(digits).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


@pytest.mark.parametrize(("split", "share"), [("train", 0.70), ("val", 0.15), ("test", 0.15)])
def test_splits_hold_their_share_of_every_digit(split: Split, share: float) -> None:
    counts = np.bincount(load_scans(split).digits)
    wanted = np.array([178, 182, 177, 183, 181, 182, 181, 179, 174, 180]) * share
    assert np.abs(counts - wanted).max() <= 1


def test_drawing_keeps_the_strokes_where_they_are() -> None:
    scans = load_scans("val")
    drawn = scans.draw(40).reshape(len(scans), 8, 5, 8, 5).mean(axis=(2, 4))  # back to 8 x 8
    correlation = np.corrcoef(drawn.ravel(), scans.ink.ravel())[0, 1]
    assert correlation > 0.98  # measured 0.990; a drawing shifted by one pixel of 8 gives 0.6
    assert scans.draw(40).min() >= 0
    assert scans.draw(40).max() <= 1


def test_ink_lies_inside_its_bounds() -> None:
    scans = load_scans("test")
    for ink, (x0, y0, x1, y1) in zip(scans.ink[:50], scans.bounds[:50] * 8, strict=True):
        outside = ink.copy()
        outside[int(y0) : int(y1), int(x0) : int(x1)] = 0
        assert outside.max() <= 0.25
        inside = ink[int(y0) : int(y1), int(x0) : int(x1)] > 0.25
        assert inside.any(axis=0)[[0, -1]].all()
        assert inside.any(axis=1)[[0, -1]].all()


def test_a_missing_file_says_what_to_install() -> None:
    with pytest.raises(ValueError, match="Install scikit-learn"):
        bundled("data/nothing.csv")
