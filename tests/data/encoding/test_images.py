from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from lit_eve_data.batches import ImageLayout
from lit_eve_data.encoding.images import (
    Area,
    ImageCutter,
    LongestEdge,
    Native,
    SizePolicy,
    Square,
    resize,
    visual_source,
)

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def by_loops(image: np.ndarray, layout: ImageLayout) -> np.ndarray:
    """Windows of an image as the contract words it, float64."""
    windows = []
    for y in range(0, image.shape[0], layout.cell):
        for x in range(0, image.shape[1], layout.cell):
            patches = []
            for v in range(y, y + layout.cell, layout.patch):
                for u in range(x, x + layout.cell, layout.patch):
                    patch = image[v : v + layout.patch, u : u + layout.patch] / 255
                    patch = (patch - np.array(MEAN)) / np.array(STD)
                    patches.append(np.moveaxis(patch, 2, 0).ravel())  # channel, then y, then x
            windows.append(patches)
    return np.array(windows)


@pytest.mark.parametrize(("patch", "pool"), [(4, 2), (8, 1), (2, 3)])
def test_patches_are_those_of_plain_loops(patch: int, pool: int) -> None:
    layout = ImageLayout(patch, pool, cls=True, row_end=True)
    images = [photo(2 * layout.cell, 3 * layout.cell), photo(4 * layout.cell, layout.cell, 1)]
    packed = ImageCutter(layout, Native(), MEAN, STD).cut(images)
    expected = np.concatenate([by_loops(image, layout) for image in images])
    assert packed.grids == ((2, 3), (4, 1))
    assert packed.patches.shape == (10, pool**2, 3 * patch**2)
    assert packed.window_image.tolist() == [0] * 6 + [1] * 4
    assert np.abs(packed.patches.numpy() - expected).max() < 2e-6  # float32; measured 6e-7


# Two images of 2 x 2 and 1 x 3 windows: windows 0-6, class tokens 7 and 8, row end 9.
@pytest.mark.parametrize(
    ("cls", "row_end", "source"),
    [
        (True, True, [7, 0, 1, 9, 2, 3, 9, 8, 4, 5, 6, 9]),
        (False, True, [0, 1, 9, 2, 3, 9, 4, 5, 6, 9]),
        (True, False, [7, 0, 1, 2, 3, 8, 4, 5, 6]),
        (False, False, [0, 1, 2, 3, 4, 5, 6]),
    ],
)
def test_visual_tokens_come_in_the_order_of_the_layout(
    cls: bool, row_end: bool, source: list[int]
) -> None:
    layout = ImageLayout(4, 2, cls, row_end)
    assert visual_source([(2, 2), (1, 3)], layout).tolist() == source
    assert sum(layout.num_tokens(*grid) for grid in [(2, 2), (1, 3)]) == len(source)


def test_no_images_give_empty_tensors() -> None:
    packed = ImageCutter(ImageLayout(4, 2, True, True), Native(), MEAN, STD).cut([])
    assert packed.patches.shape == (0, 4, 48)
    assert packed.visual_source.shape == packed.window_image.shape == (0,)
    assert packed.num_images == 0


# Worked by hand for cells of 16 pixels.
@pytest.mark.parametrize(
    ("policy", "size", "target"),
    [
        (Native(), (48, 80), (48, 80)),
        (Native(), (50, 89), (48, 96)),
        (Native(), (5, 7), (16, 16)),
        (LongestEdge(64), (48, 96), (32, 64)),
        (LongestEdge(64), (16, 32), (32, 64)),
        (LongestEdge(64), (1, 1000), (16, 64)),
        (Area(64), (48, 80), (48, 80)),
        (Area(64), (128, 128), (64, 64)),
        (Area(64), (64, 256), (32, 128)),
        (Area(16), (16, 160), (16, 16)),
        (LongestEdge(64, "up"), (48, 97), (32, 64)),
        (LongestEdge(64, "up"), (49, 97), (48, 64)),
        (LongestEdge(64, "up"), (64, 7), (64, 16)),
        (LongestEdge(64, "up", multiple=32), (33, 64), (64, 64)),
        (LongestEdge(64, "nearest", multiple=32), (40, 64), (32, 64)),
        # sqrt(40 * 360) = 120 is above 64: 21.3 and 192 px; sqrt(40 * 90) = 60 is not.
        (Area(64, "eve_v2_training"), (40, 360), (16, 192)),
        (Area(64, "eve_v2_training"), (40, 90), (32, 96)),
        (Area(64, "eve_v2_training"), (56, 24), (64, 32)),
        (Area(64, "eve_v2_inference"), (40, 360), (32, 192)),
        (Area(60, "eve_v2_inference"), (40, 90), (48, 96)),
        (Area(64, "eve_v2_inference"), (5, 5), (64, 64)),
        (Square(64), (16, 160), (64, 64)),
        (Square(70), (16, 160), (64, 64)),
    ],
)
def test_size_policies_round_to_whole_cells(
    policy: SizePolicy, size: tuple[int, int], target: tuple[int, int]
) -> None:
    assert policy.target(*size, 16) == target


@pytest.mark.parametrize("policy", [Native(), LongestEdge(96), Area(96), Square(96)])
def test_tokens_are_known_before_the_image_is_read(policy: SizePolicy) -> None:
    cutter = ImageCutter(ImageLayout(8, 2, True, True), policy, MEAN, STD)
    for height, width in [(30, 200), (96, 96), (333, 100)]:
        packed = cutter.cut([photo(height, width)])
        assert len(packed.visual_source) == cutter.num_tokens(height, width)
        assert packed.grids == (cutter.grid(height, width),)


def test_area_never_exceeds_its_limit() -> None:
    for height in range(10, 400, 13):
        for width in range(10, 400, 17):
            rows, columns = Area(96).target(height, width, 16)
            assert rows * columns <= 96**2


@pytest.mark.parametrize("size", [(48, 96), (160, 224)])
def test_resizing_is_pillows_bicubic(size: tuple[int, int]) -> None:
    smooth = np.asarray(Image.fromarray(photo(20, 30)).resize((150, 100), Image.Resampling.BICUBIC))
    theirs = np.asarray(Image.fromarray(smooth).resize(size[::-1], Image.Resampling.BICUBIC))
    assert np.array_equal(resize(smooth, *size, "pillow"), theirs)
    assert resize(smooth, 100, 150) is smooth


@pytest.mark.parametrize("size", [(30, 50), (97, 64), (16, 200)])
def test_both_resamplers_make_nearly_the_same_picture(size: tuple[int, int]) -> None:
    rough = np.random.default_rng(0).integers(0, 256, (8, 12, 3), np.uint8)
    image = resize(rough, 80, 120)
    one, other = (resize(image, *size, by).astype(int) for by in ("pillow", "torch"))
    assert other.shape == (*size, 3)
    assert np.abs(one - other).max() <= 2
    assert np.abs(one - other).mean() < 0.2  # 0.13 where an edge grows twelvefold
    assert (one != other).any()
    assert (
        resize(image, *size, "torch").base is not None
    )  # torch's own memory: nothing is laid out anew
