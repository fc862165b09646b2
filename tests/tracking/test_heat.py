from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from lit_eve.tracking.heat import COVER, heat

DARK, YELLOW = (20, 11, 52), (246, 215, 70)


def over_grey(colour: tuple[int, int, int], grey: int) -> tuple[int, ...]:
    return tuple(round(COVER * part + (1 - COVER) * grey) for part in colour)


def test_every_cell_covers_its_own_part_of_the_picture() -> None:
    picture = Image.new("RGB", (20, 10), (100, 100, 100))
    drawn = heat(picture, np.array([[0.0, 1.0], [1.0, 0.0]]), 0.0, 1.0, side=40)
    assert drawn.size == (40, 20)
    for place, colour in (((5, 5), DARK), ((35, 5), YELLOW), ((5, 15), YELLOW), ((35, 15), DARK)):
        assert drawn.getpixel(place) == pytest.approx(over_grey(colour, 100), abs=1)


def test_what_lies_outside_the_ends_gets_their_colours() -> None:
    picture = Image.new("RGB", (4, 4), (0, 0, 0))
    drawn = heat(picture, np.array([[-9.0, 9.0, np.nan]]), 0.0, 1.0, side=30)
    for place, colour in (((5, 15), DARK), ((15, 15), YELLOW), ((25, 15), DARK)):
        assert drawn.getpixel(place) == pytest.approx(over_grey(colour, 0), abs=1)


@pytest.mark.parametrize("values", [np.zeros(4), np.zeros((0, 3))])
def test_values_that_are_no_grid_are_refused(values: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"\(rows, columns\) is needed"):
        heat(Image.new("RGB", (4, 4)), values, 0.0, 1.0)


def test_ends_without_room_between_them_are_refused() -> None:
    with pytest.raises(ValueError, match="give them in order"):
        heat(Image.new("RGB", (4, 4)), np.zeros((2, 2)), 1.0, 1.0)
