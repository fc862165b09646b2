from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from lit_eve.tracking.pictures import (
    BLUE,
    GREEN,
    RED,
    Answer,
    answer_grid,
    answer_sheet,
    as_image,
    boxed,
    grid,
)

BLACK = np.zeros((8, 8, 3))


def colours(image: Image.Image) -> set[tuple[int, ...]]:
    return {tuple(pixel) for pixel in np.unique(np.asarray(image).reshape(-1, 3), axis=0).tolist()}


def answer(correct: bool = True) -> Answer:
    return Answer(BLACK, "Which digit?", "7", "7" if correct else "1", correct)


@pytest.mark.parametrize(
    ("array", "pixel"),
    [
        (np.full((2, 3), 0.5), (128, 128, 128)),
        (np.full((2, 3, 1), 255, dtype=np.uint8), (255, 255, 255)),
        (np.tile([1.0, 0.0, 2.0], (2, 3, 1)), (255, 0, 255)),
        (np.full((2, 3, 3), np.nan), (0, 0, 0)),
    ],
)
def test_an_array_becomes_a_picture(array: np.ndarray, pixel: tuple[int, int, int]) -> None:
    image = as_image(array)
    assert (image.mode, image.size, image.getpixel((0, 0))) == ("RGB", (3, 2), pixel)


def test_a_torch_image_is_told_to_move_its_channels() -> None:
    with pytest.raises(ValueError, match=r"image\.permute\(1, 2, 0\)"):
        as_image(np.zeros((3, 8, 8)))


def test_small_pictures_grow_by_a_whole_factor_without_smoothing() -> None:
    checks = np.indices((5, 5)).sum(0) % 2 * 1.0
    sheet = grid([checks], cell=64)  # 5 px fit 12 times into 64 px: 60 px, 2 px of border
    inside = np.asarray(sheet)[12 + 2 : 12 + 62, 12 + 2 : 12 + 62, 0]
    assert (inside == np.kron(checks, np.ones((12, 12))) * 255).all()


def test_large_pictures_shrink_into_their_square() -> None:
    sheet = grid([np.zeros((100, 400, 3))], cell=64)
    dark = np.argwhere(np.asarray(sheet)[..., 0] == 0)
    assert (dark.max(0) - dark.min(0) + 1).tolist() == [16, 64]


def test_a_grid_is_as_square_as_it_can_be() -> None:
    assert grid([BLACK] * 7, cell=88).size == (3 * 100 + 12, 3 * 100 + 12)
    assert grid([BLACK] * 2, columns=5, cell=88).size == (2 * 100 + 12, 100 + 12)


def test_captions_lie_below_their_pictures() -> None:
    with_words = np.asarray(grid([BLACK, BLACK], ["short", "a caption of several words"], cell=96))
    assert with_words.shape[0] > 96 + 24
    assert (with_words[12 + 96 :, :, :] < 128).any()


@pytest.mark.parametrize("number", [0, 2])
def test_captions_must_match_the_pictures(number: int) -> None:
    with pytest.raises(ValueError, match=r"at least one picture|give one each, or none"):
        grid([BLACK] * (number // 2), ["a"] * 3)


def test_a_box_is_drawn_where_it_is() -> None:
    image = boxed(np.ones((40, 80, 3)), [((0.25, 0.5, 0.75, 1.0), BLUE)])
    rows, columns = np.nonzero((np.asarray(image) == BLUE).all(-1))
    # Corners by hand: 0.25 and 0.75 of 79 are 19.75 and 59.25, 0.5 of 39 is 19.5.
    assert (columns.min(), columns.max()) == (pytest.approx(20, abs=1), pytest.approx(59, abs=1))
    assert (rows.min(), rows.max()) == (pytest.approx(20, abs=1), 39)


@pytest.mark.parametrize("box", [(-1.0, -1.0, 2.0, 2.0), (0.7, 0.7, 0.2, 0.2), (0.5,) * 4])
def test_any_four_numbers_can_be_drawn(box: tuple[float, float, float, float]) -> None:
    assert BLUE in colours(boxed(BLACK, [(box, BLUE)]))


def test_drawing_boxes_leaves_the_picture_alone() -> None:
    image = Image.new("RGB", (8, 8))
    boxed(image, [((0, 0, 1, 1), RED)])
    assert colours(image) == {(0, 0, 0)}


@pytest.mark.parametrize("draw", [answer_sheet, answer_grid])
def test_right_is_green_and_wrong_is_red(draw: object) -> None:
    assert callable(draw)
    right, wrong = colours(draw([answer()])), colours(draw([answer(correct=False)]))
    assert GREEN in right
    assert RED not in right
    assert RED in wrong
    assert GREEN not in wrong


@pytest.mark.parametrize("draw", [answer_sheet, answer_grid])
def test_the_expected_box_is_blue_beside_the_given_one(draw: object) -> None:
    assert callable(draw)
    boxes = {"expected_box": (0.0, 0.0, 0.5, 0.5), "given_box": (0.5, 0.5, 1.0, 1.0)}
    assert BLUE in colours(draw([replace(answer(), **boxes)]))  # type: ignore[arg-type]
    assert BLUE not in colours(draw([answer()]))


@pytest.mark.parametrize("draw", [answer_sheet, answer_grid])
def test_an_answer_of_any_length_fits(draw: object) -> None:
    assert callable(draw)
    long = Answer(BLACK, "word " * 200, "x" * 500, "", correct=False, kind="position out")
    assert draw([long]).size == draw([answer(correct=False)]).size


@pytest.mark.parametrize("draw", [answer_sheet, answer_grid])
def test_no_answers_are_no_picture(draw: object) -> None:
    assert callable(draw)
    with pytest.raises(ValueError, match="at least one answer"):
        draw([])


def test_the_grid_of_a_dozen_answers_is_nearly_square() -> None:
    width, height = answer_grid([answer()] * 12).size
    assert 0.8 < width / height < 1.25
