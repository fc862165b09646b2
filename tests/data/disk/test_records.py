from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lit_eve_data.disk.records import (
    BadSampleError,
    Sample,
    StoredImage,
    decode,
    decode_header,
    encode,
)

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)


def sample(*images: StoredImage) -> Sample:
    content = "<image>" * len(images) + "Which digit? 数字"
    turns = [{"role": "user", "content": content}, {"role": "assistant", "content": "7"}]
    return Sample("train/3", "question/read", turns, list(images), {"digits": [7]})


def stored(form: str, pixels: np.ndarray = PIXELS) -> StoredImage:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form, lossless=True)
    return StoredImage(pixels.shape[0], pixels.shape[1], form, file.getvalue())


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@given(
    words=st.lists(texts.filter(lambda text: "<image>" not in text), max_size=4),
    sizes=st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), max_size=3),
    facts=st.dictionaries(texts, st.lists(st.integers(-9, 9) | texts, max_size=3), max_size=3),
)
@settings(max_examples=100, deadline=None, derandomize=True)
def test_what_is_encoded_is_decoded(
    words: list[str], sizes: list[tuple[int, int]], facts: dict[str, list[int | str]]
) -> None:
    images = [StoredImage.raw(np.full((*size, 3), n, np.uint8)) for n, size in enumerate(sizes)]
    turns = [{"role": "user", "content": "<image>" * len(images)}]
    turns += [{"role": "assistant", "content": word} for word in words]
    original = Sample("a", "b/c", turns, images, facts)
    assert decode(encode(original)) == original
    assert decode_header(encode(original))["turns"] == turns


def test_raw_pixels_come_back_bit_by_bit() -> None:
    back = decode(encode(sample(StoredImage.raw(PIXELS), stored("png"))))
    assert np.array_equal(back.images[0].pixels(), PIXELS)
    assert np.array_equal(back.images[1].pixels(), PIXELS)


@pytest.mark.parametrize("form", ["png", "jpeg", "webp"])
def test_image_files_are_decoded_to_their_size(form: str) -> None:
    flat = np.full((40, 24, 3), (200, 60, 20), np.uint8)
    pixels = decode(encode(sample(stored(form, flat)))).images[0].pixels()
    assert pixels.shape == (40, 24, 3)
    assert np.abs(pixels.astype(int) - flat).max() <= 4  # JPEG at Pillow's quality, measured 2


def test_no_flipped_bit_goes_unnoticed() -> None:
    blob = encode(sample(StoredImage.raw(PIXELS)))
    for place in range(len(blob)):
        for bit in (0, 7):
            damaged = bytearray(blob)
            damaged[place] ^= 1 << bit
            with pytest.raises(BadSampleError) as caught:
                decode(bytes(damaged))
            assert caught.value.reason == "damaged"


def test_no_lost_tail_goes_unnoticed() -> None:
    blob = encode(sample(StoredImage.raw(PIXELS)))
    for length in range(len(blob)):
        with pytest.raises(BadSampleError, match="damaged"):
            decode(blob[:length])


def test_a_blob_can_be_read_through_a_view() -> None:
    back = decode(memoryview(encode(sample(StoredImage.raw(PIXELS)))))
    assert isinstance(back.images[0].data, bytes)


@pytest.mark.parametrize("form", ["png", "jpeg", "webp"])
def test_a_truncated_image_is_refused(form: str) -> None:
    whole = stored(form, np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    cut = StoredImage(64, 64, form, whole.data[: len(whole.data) // 2])
    with pytest.raises(BadSampleError, match="cannot be decoded"):
        cut.pixels()


def test_an_image_of_another_size_than_stated_is_refused() -> None:
    with pytest.raises(BadSampleError, match="stated as 9 x 6 decodes to 6 x 9"):
        StoredImage(9, 6, "png", stored("png").data).pixels()
    with pytest.raises(BadSampleError, match="162 bytes, not 27"):
        StoredImage(3, 3, "raw", PIXELS.tobytes()).pixels()


def test_every_image_needs_its_placeholder() -> None:
    image = StoredImage.raw(PIXELS)
    good = sample(image)
    with pytest.raises(ValueError, match="2 images and 1 <image>"):
        encode(Sample("a", "b", good.turns, [image, image]))
    with pytest.raises(ValueError, match="each image needs exactly one"):
        encode(Sample("a", "b", [{"role": "assistant", "content": "<image>"}], [image]))
