"""What may go into a dataset: images, words and names from strangers' files.

Images are kept as they are wherever a decoder can be trusted with them later; what decoders treat
differently (transparency, orientation, 16 bits, colour models of print) is settled here, once.

Files that were cut off are recognised by their structure (markers, chunks with checksums, stated
lengths), those that are broken inside by decoding them: a JPEG in grey at an eighth of its size,
which reads all of its data in a quarter of the time. A bit that flips and still decodes is found by
neither.
"""

from __future__ import annotations

import io
import os
import stat
import warnings
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from lit_eve_data.disk.records import IMAGE, BadSampleError, StoredImage, Turn, fast_jpeg

READABLE = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM")
"""Formats that are opened at all: the fewer decoders, the fewer surprises."""
KEPT = {"JPEG": "jpeg", "PNG": "png", "WEBP": "webp"}
"""Formats that are stored as they come, by the name in a record."""
MOST_PIXELS = 64_000_000
MOST_BYTES = 200_000_000
SMALLEST_SIDE = 16
LARGEST_ASPECT = 20
_BEGINNINGS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")
"""Of JPEG and PNG; what begins so and cannot be opened was cut off, whatever Pillow calls it."""
_QUALITY = 95  # of the JPEG that replaces one whose orientation or colours had to be settled


@dataclass(frozen=True)
class ImageRules:
    """What is done with images.

    Args:
        max_side: longer ones are scaled down to it; None keeps all sizes.
        decode: decode the images that are kept, to find files that are whole but broken inside.
    """

    max_side: int | None = None
    decode: bool = True


def check_image(data: bytes, rules: ImageRules) -> StoredImage:
    """An image file as it will be stored.

    Raises:
        BadSampleError: if it is no image, broken, or unfit, with the reason.
    """
    image = _open(data)
    if image.width * image.height > MOST_PIXELS:
        raise BadSampleError(
            "too_large", f"{image.width} x {image.height} pixels are above {MOST_PIXELS:,}."
        )
    _check_shape(image)
    if _is_cut_off(image.format or "", data):
        raise BadSampleError("truncated", f"the {image.format} file ends before its end mark.")
    if rules.decode and image.format in ("JPEG", "MPO"):
        _check_jpeg(image, data)
    if _can_be_kept(image, data, rules):
        if rules.decode and image.format != "JPEG":
            _load(image)
        return StoredImage(image.height, image.width, KEPT[image.format or ""], data)
    return _rewritten(image, rules)


def _open(data: bytes) -> Image.Image:
    """The header of an image."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its size: it is checked by the caller
            return Image.open(io.BytesIO(data), formats=_readable())
    except Image.DecompressionBombError as error:
        raise BadSampleError("too_large", str(error)) from error
    except Exception as error:  # Pillow's readers raise anything on strangers' bytes
        if isinstance(error, UnidentifiedImageError) and not data.startswith(_BEGINNINGS):
            raise BadSampleError("not_an_image", "it begins like no known format.") from error
        told = "its header is broken." if isinstance(error, UnidentifiedImageError) else str(error)
        raise BadSampleError("truncated", f"no image can be read from it: {told}") from error


@cache
def _readable() -> tuple[str, ...]:
    """Of `READABLE` what this Pillow can open; an unknown name would fail every image."""
    Image.init()
    return tuple(name for name in READABLE if name in Image.OPEN)


def _check_shape(image: Image.Image) -> None:
    short, long = sorted(image.size)
    if short < SMALLEST_SIDE:
        raise BadSampleError(
            "too_small", f"{image.width} x {image.height}: a side is below {SMALLEST_SIDE} pixels."
        )
    if long > LARGEST_ASPECT * short:
        raise BadSampleError(
            "too_narrow",
            f"{image.width} x {image.height}: one side is over {LARGEST_ASPECT} times the other.",
        )
    if image.mode in ("F", "I"):
        raise BadSampleError("unsupported_mode", f"pixels of mode {image.mode} have no range.")


def _can_be_kept(image: Image.Image, data: bytes, rules: ImageRules) -> bool:
    """Whether every decoder will make the same of the file as it stands."""
    if image.format == "PNG" and b"eXIf" in data:  # `getexif` would decode all pixels to look
        return False
    return (
        image.format in KEPT
        and image.mode in ("RGB", "L")
        and "transparency" not in image.info
        and (image.format == "PNG" or image.getexif().get(0x0112, 1) == 1)  # orientation
        and not getattr(image, "is_animated", False)
        and (rules.max_side is None or max(image.size) <= rules.max_side)
    )


def _rewritten(image: Image.Image, rules: ImageRules) -> StoredImage:
    """The image as a plain RGB file: upright, opaque, small enough."""
    photo = image.format in ("JPEG", "MPO")
    plain = plain_rgb(ImageOps.exif_transpose(_load(image)))
    if rules.max_side is not None and max(plain.size) > rules.max_side:
        scale = rules.max_side / max(plain.size)
        size = (max(1, round(plain.width * scale)), max(1, round(plain.height * scale)))
        plain = plain.resize(size, Image.Resampling.BICUBIC)
    file = io.BytesIO()
    if photo:
        plain.save(file, "JPEG", quality=_QUALITY, subsampling=0)
    else:
        plain.save(file, "PNG", compress_level=3)
    kind = "jpeg" if photo else "png"
    return StoredImage(plain.height, plain.width, kind, file.getvalue())


def _load(image: Image.Image) -> Image.Image:
    """Decode the pixels."""
    try:
        image.load()
    except Exception as error:  # Pillow's decoders raise anything on strangers' bytes
        reason = "truncated" if "truncated" in str(error) else "damaged"
        raise BadSampleError(reason, f"its pixels cannot be decoded: {error}") from error
    return image


def _check_jpeg(image: Image.Image, data: bytes) -> None:
    """Read all data of a JPEG; strictly if it can be, Pillow fills in what it cannot read."""
    fast = fast_jpeg()
    if fast is None:
        small = _open(data)
        small.draft("L", (1, 1))  # an eighth of the size
        _load(small)
        return
    colours = "CMYK" if image.mode == "CMYK" else "GRAY"
    try:
        fast.decode_jpeg(data, colours, min_height=1, min_width=1, min_factor=8)
    except ValueError as error:
        raise BadSampleError("damaged", f"its pixels cannot be decoded: {error}") from error


def plain_rgb(image: Image.Image) -> Image.Image:
    """Eight bits of red, green and blue; what is transparent shows white paper.

    Raises:
        ValueError: if nothing says what is white: `convert` would cut 32-bit pixels off at 255.
    """
    if image.mode in ("F", "I"):
        raise ValueError(
            f"pixels of mode {image.mode}, 32 bits each, have no range that says what is white. "
            "Save the picture with 8 or 16 bits."
        )
    if image.mode.startswith("I;16"):  # `convert` would clip, not scale
        values = np.asarray(image, np.uint16)
        image = Image.fromarray(np.round(values / 257).astype(np.uint8), "L")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        layer = image.convert("RGBA")
        paper = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(paper, layer).convert("RGB")
    return image.convert("RGB")


def _is_cut_off(form: str, data: bytes) -> bool:
    """Whether the end of a file is missing, as far as its format tells without decoding it."""
    if form in ("JPEG", "MPO"):
        return b"\xff\xd9" not in data[-1024:]  # some cameras add a few bytes behind the mark
    if form == "PNG":
        return not _is_whole_png(data)
    if form == "WEBP":
        return len(data) < 8 + int.from_bytes(data[4:8], "little")
    return False  # the others are decoded and written anew


def _is_whole_png(data: bytes) -> bool:
    """Walk the chunks: each has its length and checksum, the last is called IEND."""
    place = 8
    while place + 12 <= len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        body = data[place + 4 : place + 8 + length]
        if int.from_bytes(data[place + 8 + length : place + 12 + length], "big") != zlib.crc32(
            body
        ):
            return False
        if body[:4] == b"IEND":
            return True
        place += 12 + length
    return False


def check_text(text: Any) -> str:
    """Words that can be stored.

    Raises:
        BadSampleError: if it is no text, or text that no file can hold.
    """
    if not isinstance(text, str):
        raise BadSampleError("bad_text", f"expected text, found {type(text).__name__}.")
    try:
        text.encode()
    except UnicodeEncodeError as error:  # half a character, which JSON lets through
        raise BadSampleError("bad_text", f"it holds half a character: {error}") from error
    return text


def check_turns(turns: Sequence[Turn], num_images: int) -> None:
    """A conversation that can be learnt from.

    Raises:
        BadSampleError: if roles do not alternate, an answer is empty, or placeholders and images
            do not match.
    """
    talk = turns[1:] if turns and turns[0]["role"] == "system" else turns
    roles = [turn["role"] for turn in talk]
    if not roles or len(roles) % 2 or roles != ["user", "assistant"] * (len(roles) // 2):
        raise BadSampleError(
            "turns", f"turns {roles} do not alternate between user and assistant, user first."
        )
    if not all(turn["content"].strip() for turn in talk if turn["role"] == "assistant"):
        raise BadSampleError("empty_answer", "an answer is empty: there is nothing to learn.")
    placed = sum(turn["content"].count(IMAGE) for turn in talk if turn["role"] == "user")
    if placed != num_images or placed != sum(turn["content"].count(IMAGE) for turn in turns):
        raise BadSampleError(
            "placeholders", f"{num_images} images but {placed} {IMAGE} in what the user says."
        )


def read_below(folder: Path, name: Any) -> bytes:
    """What is in the file called `name` below `folder`.

    Raises:
        BadSampleError: if the name leads out of the folder, also through a link, or to no file, or
            if the file is larger than any image should be.
    """
    check_text(name)
    plain = PurePosixPath(name)
    if plain.is_absolute() or ".." in plain.parts or "\0" in name or "\\" in name:
        raise BadSampleError("path", f"{name!r} leads out of the image folder.")
    try:
        if _leads_out(folder, plain):
            raise BadSampleError("path", f"{name!r} is a link out of the image folder.")
        path = f"{folder}/{plain}"
        if not os.path.isfile(path):  # half of pathlib's time, for every picture
            raise BadSampleError("missing", f"there is no file {name!r} in the image folder.")
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size > MOST_BYTES:
                raise BadSampleError("too_large", f"{name!r} has more than {MOST_BYTES:,} bytes.")
            return file.read()
    except OSError as error:  # a name too long, a loop of links, no permission
        raise BadSampleError("path", f"{name!r} cannot be read: {error}") from error


def _leads_out(folder: Path, name: PurePosixPath) -> bool:
    """Whether a name without `..` leaves the folder, which takes a link on its way."""
    here = str(folder)
    for part in name.parts:
        here = f"{here}/{part}"
        with suppress(FileNotFoundError, NotADirectoryError):
            if stat.S_ISLNK(os.lstat(here).st_mode):
                return not (folder / name).resolve().is_relative_to(folder.resolve())
    return False
