"""One sample as one blob: length and checksum, a JSON header, the images one after another.

No pickle anywhere: what is read back is text, numbers and pixels. Images are stored as raw pixels
(`raw`, for small synthetic ones) or in a file format Pillow knows (`png`, `jpeg`, `webp`). The
checksum is there because the chunks have none: a flipped bit would decode to another picture.
"""

from __future__ import annotations

import importlib
import io
import json
import struct
import zlib
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Turn = dict[str, str]
IMAGE = "<image>"
"""Stands in a turn's content where an image belongs."""
TEXT = "text"
"""Role of a turn that is no conversation but text to be learnt as it stands."""
_FRAME = struct.Struct("<II")  # length of the header, CRC-32 of everything behind the frame


class BadSampleError(ValueError):
    """A sample that cannot be used; `reason` is a word to count by."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class StoredImage:
    """An image as it is stored: its size, and bytes that `format` explains."""

    height: int
    width: int
    format: str
    data: bytes

    @classmethod
    def raw(cls, pixels: Pixels) -> StoredImage:
        """Pixels (H, W, 3) as they are."""
        return cls(pixels.shape[0], pixels.shape[1], "raw", pixels.tobytes())

    def pixels(self) -> Pixels:
        """The image, (H, W, 3) uint8.

        Raises:
            BadSampleError: if the bytes do not decode to an image of the stated size.
        """
        if self.format == "raw":
            if len(self.data) != self.height * self.width * 3:
                raise BadSampleError(
                    "damaged",
                    f"a raw image of {self.height} x {self.width} has {len(self.data)} bytes, not "
                    f"{self.height * self.width * 3}: the record is damaged. Prepare it again.",
                )
            return np.frombuffer(self.data, np.uint8).reshape(self.height, self.width, 3)
        decoded = _decode(self.data, self.format)
        if decoded.shape != (self.height, self.width, 3):
            raise BadSampleError(
                "damaged",
                f"an image stated as {self.height} x {self.width} decodes to {decoded.shape[0]} x "
                f"{decoded.shape[1]}: the record is damaged. Prepare it again.",
            )
        return decoded


@dataclass(frozen=True)
class Sample:
    """One conversation about zero or more images."""

    id: str
    kind: str
    turns: list[Turn]
    images: list[StoredImage]
    facts: dict[str, Any] = field(default_factory=dict)
    """What is known of the sample beyond its text; evaluations score against it."""


def encode(sample: Sample) -> bytes:
    """A sample as one blob.

    Raises:
        ValueError: if the placeholders do not match the images, or text cannot be written as UTF-8.
    """
    check(sample)
    header = {
        "id": sample.id,
        "kind": sample.kind,
        "turns": sample.turns,
        "images": [[i.height, i.width, i.format, len(i.data)] for i in sample.images],
        "facts": sample.facts,
    }
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    body = b"".join((text, *(image.data for image in sample.images)))
    return _FRAME.pack(len(text), zlib.crc32(body)) + body


def check(sample: Sample) -> None:
    """Raise ValueError unless there is one placeholder for each image, all in user turns.

    A sample without turns is a bare set of images.
    """
    if not sample.turns and sample.images:
        return
    placed = sum(turn["content"].count(IMAGE) for turn in sample.turns if turn["role"] == "user")
    anywhere = sum(turn["content"].count(IMAGE) for turn in sample.turns)
    if placed != len(sample.images) or anywhere != placed:
        raise ValueError(
            f"sample {sample.id!r} has {len(sample.images)} images and {placed} {IMAGE} "
            f"placeholders in user turns ({anywhere} in all): each image needs exactly one."
        )


def checksum(blob: bytes) -> int:
    """The checksum a blob carries."""
    return int(_FRAME.unpack_from(blob)[1])


def is_intact(blob: bytes | memoryview, expected: int) -> bool:
    """Whether a blob carries that checksum, and is what it was made of; nothing is copied."""
    _, stated = _FRAME.unpack_from(blob)
    return bool(stated == expected == zlib.crc32(memoryview(blob)[_FRAME.size :]))


def decode_header(blob: bytes | memoryview) -> dict[str, Any]:
    """The header alone, without touching the images."""
    length, _ = _FRAME.unpack_from(blob)
    header = json.loads(bytes(blob[_FRAME.size : _FRAME.size + length]))
    return cast(dict[str, Any], header)


def decode(blob: bytes | memoryview) -> Sample:
    """The sample of a blob; its images stay encoded until asked for their pixels.

    Raises:
        BadSampleError: if the blob is not a whole record.
    """
    try:
        length, checksum = _FRAME.unpack_from(blob)
        if zlib.crc32(blob[_FRAME.size :]) != checksum:
            raise ValueError("its checksum differs")
        header = decode_header(blob)
        start = _FRAME.size + length
        images = []
        for height, width, form, size in header["images"]:
            data = bytes(blob[start : start + size])  # never a view: it must survive its chunk
            if len(data) != size:
                raise ValueError("it ends too early")
            images.append(StoredImage(height, width, form, data))
            start += size
        return Sample(header["id"], header["kind"], header["turns"], images, header["facts"])
    except (struct.error, KeyError, TypeError, ValueError) as error:
        raise BadSampleError(
            "damaged",
            f"a record cannot be read ({error}): its bytes are damaged or were written by another "
            "program. Run `lit-eve data verify` on the dataset and prepare it again.",
        ) from error


def _decode(data: bytes, form: str) -> Pixels:
    """Pixels (H, W, 3) of an image file held in memory."""
    if form == "jpeg" and (fast := fast_jpeg()) is not None:
        try:
            return cast(Pixels, fast.decode_jpeg(data, "RGB"))
        except ValueError as error:
            raise BadSampleError("image", f"a JPEG cannot be decoded: {error}") from error
    from PIL import Image  # scenes are stored raw: most runs on a laptop never need it

    try:
        with Image.open(io.BytesIO(data), formats=[form.upper()]) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, KeyError) as error:  # what Pillow raises for broken files
        raise BadSampleError(
            "image", f"an image of format {form!r} cannot be decoded: {error}"
        ) from error


def fast_jpeg() -> Any:
    """The fast JPEG decoder (2.7 times Pillow), or None on a machine that has no build of it."""
    try:
        return importlib.import_module("simplejpeg")
    except ImportError:
        return None
