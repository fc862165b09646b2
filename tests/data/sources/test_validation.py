"""What strangers' files may hold: the table of accepted and refused inputs, row by row."""

from __future__ import annotations

import io
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lit_eve_data.disk.records import BadSampleError
from lit_eve_data.sources import validation
from lit_eve_data.sources.validation import (
    ImageRules,
    check_image,
    check_text,
    check_turns,
    read_below,
)
from tests.data.bombs import bomb

RULES = ImageRules()


def picture(width: int = 60, height: int = 40, mode: str = "RGB") -> Image.Image:
    ramp = np.linspace(0, 255, width * height * 3).reshape(height, width, 3).astype(np.uint8)
    return Image.fromarray(ramp).convert(mode)


def file(image: Image.Image, form: str, **options: Any) -> bytes:
    content = io.BytesIO()
    image.save(content, form, **options)
    return content.getvalue()


TURNED = Image.Exif()
TURNED[0x0112] = 6  # by a quarter
JPEG, PNG, WEBP = (file(picture(), form) for form in ("JPEG", "PNG", "WEBP"))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (JPEG[: len(JPEG) // 2], "truncated"),
        (JPEG[:-2], "truncated"),  # only the end mark is missing
        (PNG[: len(PNG) // 2], "truncated"),
        (PNG[:-3], "truncated"),
        (PNG[:60] + bytes([PNG[60] ^ 1]) + PNG[61:], "truncated"),  # its own checksum says so
        (WEBP[:-10], "truncated"),
        (b"", "not_an_image"),
        (bytes(500), "not_an_image"),
        (b"<!DOCTYPE html><html>404</html>", "not_an_image"),
        (bomb(), "too_large"),
        (file(picture(1, 1), "PNG"), "too_small"),
        (file(picture(900, 20), "PNG"), "too_narrow"),
        (file(Image.fromarray(np.ones((40, 60), np.float32)), "TIFF"), "unsupported_mode"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_reason(data: bytes, reason: str) -> None:
    with pytest.raises(BadSampleError) as caught:
        check_image(data, RULES)
    assert caught.value.reason == reason
    assert " at 0x" not in str(caught.value)  # of an object in memory, which tells nobody anything


@pytest.mark.parametrize(
    ("form", "mode"),
    [("JPEG", "RGB"), ("JPEG", "L"), ("PNG", "RGB"), ("PNG", "L"), ("WEBP", "RGB")],
)
def test_what_every_decoder_reads_alike_is_kept_as_it_is(form: str, mode: str) -> None:
    data = file(picture(mode=mode), form)
    stored = check_image(data, RULES)
    assert (stored.data, stored.height, stored.width) == (data, 40, 60)
    assert stored.pixels().shape == (40, 60, 3)


@pytest.mark.parametrize(
    ("form", "mode"),
    [("JPEG", "CMYK"), ("PNG", "P"), ("PNG", "1"), ("PNG", "LA"), ("GIF", "P"), ("BMP", "RGB")],
)
def test_everything_else_becomes_plain_rgb(form: str, mode: str) -> None:
    image = picture(mode=mode)
    stored = check_image(file(image, form), RULES)
    with Image.open(io.BytesIO(stored.data)) as plain:
        assert plain.mode == "RGB"
    difference = stored.pixels().astype(int) - np.asarray(image.convert("RGB"), int)
    assert np.abs(difference).mean() < 4  # of a JPEG written twice; the others are exact


def test_sixteen_bits_are_scaled_and_not_clipped() -> None:
    gray = np.full((40, 60), 126 * 257, np.uint16)
    assert (check_image(file(Image.fromarray(gray), "PNG"), RULES).pixels() == 126).all()


def test_what_is_transparent_shows_white_paper() -> None:
    clear = Image.new("RGBA", (40, 40), (255, 0, 0, 0))
    assert (check_image(file(clear, "PNG"), RULES).pixels() == 255).all()


def test_photographs_stand_upright() -> None:
    stored = check_image(file(picture(), "JPEG", exif=TURNED, quality=95), RULES)
    assert (stored.height, stored.width) == (60, 40)
    upright = np.asarray(picture().rotate(-90, expand=True), int)
    assert np.abs(stored.pixels() - upright).mean() < 3


def test_long_images_are_scaled_down_once() -> None:
    stored = check_image(JPEG, ImageRules(max_side=30))
    assert (stored.height, stored.width) == (20, 30)
    assert check_image(JPEG, ImageRules(max_side=60)).data == JPEG


def test_a_flip_inside_compressed_pixels_is_found_by_decoding() -> None:
    body = PNG[PNG.index(b"IDAT") + 4 : PNG.index(b"IEND") - 8]
    broken = b"IDAT" + bytes([body[0] ^ 0xFF]) + body[1:]
    data = PNG.replace(
        b"IDAT" + body + struct.pack(">I", zlib.crc32(b"IDAT" + body)),
        broken + struct.pack(">I", zlib.crc32(broken)),
    )
    # Its checksum is right: whole, as far as is seen without decoding.
    assert check_image(data, ImageRules(decode=False)).data == data
    with pytest.raises(BadSampleError, match="cannot be decoded") as caught:
        check_image(data, RULES)
    assert caught.value.reason == "damaged"


@pytest.mark.parametrize("options", [{}, {"exif": TURNED}, {"progressive": True}])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_jpeg_broken_inside_is_refused_by_default(mode: str, options: dict[str, Any]) -> None:
    data = file(picture(mode=mode), "JPEG", **options)
    assert check_image(data, RULES).pixels().shape[2] == 3
    middle = data.index(b"\xff\xda") + 20  # a few bytes into the first scan
    broken = data[:middle] + data[-2:]  # the end mark is there, the picture is missing
    with pytest.raises(BadSampleError, match="cannot be decoded") as caught:
        check_image(broken, RULES)
    assert caught.value.reason == "damaged"
    if mode == "RGB" and not options:
        assert check_image(broken, ImageRules(decode=False)).data == broken


def test_without_the_fast_decoder_pillow_looks_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validation, "fast_jpeg", lambda: None)
    assert check_image(JPEG, RULES).data == JPEG
    asked: list[tuple[int, int]] = []
    load = Image.Image.load

    def noting(image: Image.Image) -> Any:
        asked.append(image.size)
        return load(image)

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", noting)
    check_image(JPEG, RULES)
    assert asked == [(8, 5)]


@pytest.mark.parametrize("text", [None, 3, b"x", json.loads('"\\ud800"')])
def test_bad_text_is_refused(text: Any) -> None:
    with pytest.raises(BadSampleError) as caught:
        check_text(text)
    assert caught.value.reason == "bad_text"


def say(*turns: str) -> list[dict[str, str]]:
    return [
        {"role": ("user", "assistant")[number % 2], "content": text}
        for number, text in enumerate(turns)
    ]


@pytest.mark.parametrize(
    ("turns", "images", "reason"),
    [
        (say("<image> What?", " "), 1, "empty_answer"),
        (say("What?", "That."), 1, "placeholders"),
        (say("<image><image>?", "That."), 1, "placeholders"),
        (say("What?", "<image>"), 1, "placeholders"),
        (say("What?"), 0, "turns"),
        (say("What?", "That.")[::-1], 0, "turns"),
        ([], 0, "turns"),
    ],
)
def test_conversations_that_teach_nothing_or_wrong_things(
    turns: list[dict[str, str]], images: int, reason: str
) -> None:
    with pytest.raises(BadSampleError) as caught:
        check_turns(turns, images)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../secret", "path"),
        ("/etc/hostname", "path"),
        ("a\\..\\b", "path"),
        ("a\0b", "path"),
        ("x" * 5000, "path"),
        ("link", "path"),
        ("nothing.jpg", "missing"),
        (7, "bad_text"),
    ],
)
def test_names_cannot_leave_their_folder(tmp_path: Path, name: Any, reason: str) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(b"secret")
    (folder / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(BadSampleError) as caught:
        read_below(folder, name)
    assert caught.value.reason == reason
