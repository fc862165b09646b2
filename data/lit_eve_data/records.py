"""One sample as one blob: four bytes of length, a JSON header, the images one after another.

No pickle anywhere: what is read back is text, numbers and pixels. Images are stored as raw pixels
(`raw`, for small synthetic ones) or in a file format Pillow knows (`png`, `jpeg`, `webp`).
"""

from __future__ import annotations

import io
import json
import struct
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Turn = dict[str, str]
IMAGE = "<image>"
"""Stands in a turn's content where an image belongs."""
_LENGTH = struct.Struct("<I")
FORMATS = ("raw", "png", "jpeg", "webp")


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
            ValueError: if the bytes do not decode to an image of the stated size.
        """
        if self.format == "raw":
            if len(self.data) != self.height * self.width * 3:
                raise ValueError(
                    f"a raw image of {self.height} x {self.width} has {len(self.data)} bytes, not "
                    f"{self.height * self.width * 3}: the record is damaged. Prepare it again."
                )
            return np.frombuffer(self.data, np.uint8).reshape(self.height, self.width, 3)
        decoded = _decode(self.data, self.format)
        if decoded.shape != (self.height, self.width, 3):
            raise ValueError(
                f"an image stated as {self.height} x {self.width} decodes to {decoded.shape[0]} x "
                f"{decoded.shape[1]}: the record is damaged. Prepare it again."
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
    return b"".join((_LENGTH.pack(len(text)), text, *(i.data for i in sample.images)))


def check(sample: Sample) -> None:
    """Raise ValueError unless there is one placeholder for each image, all in user turns."""
    placed = sum(turn["content"].count(IMAGE) for turn in sample.turns if turn["role"] == "user")
    anywhere = sum(turn["content"].count(IMAGE) for turn in sample.turns)
    if placed != len(sample.images) or anywhere != placed:
        raise ValueError(
            f"sample {sample.id!r} has {len(sample.images)} images and {placed} {IMAGE} "
            f"placeholders in user turns ({anywhere} in all): each image needs exactly one."
        )


def decode_header(blob: bytes | memoryview) -> dict[str, Any]:
    """The header alone, without touching the images."""
    (length,) = _LENGTH.unpack_from(blob)
    header = json.loads(bytes(blob[_LENGTH.size : _LENGTH.size + length]))
    return cast(dict[str, Any], header)


def decode(blob: bytes | memoryview) -> Sample:
    """The sample of a blob; its images stay encoded until asked for their pixels.

    Raises:
        ValueError: if the blob is not a whole record.
    """
    try:
        header = decode_header(blob)
        start = _LENGTH.size + _LENGTH.unpack_from(blob)[0]
        images = []
        for height, width, form, size in header["images"]:
            data = bytes(blob[start : start + size])  # never a view: it must survive its chunk
            if len(data) != size:
                raise ValueError("it ends too early")
            images.append(StoredImage(height, width, form, data))
            start += size
        return Sample(header["id"], header["kind"], header["turns"], images, header["facts"])
    except (struct.error, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"a record cannot be read ({error}): its bytes are damaged or were written by another "
            "program. Run `lit-eve data verify` on the dataset and prepare it again."
        ) from error


def _decode(data: bytes, form: str) -> Pixels:
    """Pixels (H, W, 3) of an image file held in memory."""
    if form == "jpeg" and (fast := _simplejpeg()) is not None:
        return cast(Pixels, fast.decode_jpeg(data, "RGB"))
    from PIL import Image  # scenes are stored raw: most runs on a laptop never need it

    with Image.open(io.BytesIO(data), formats=[form.upper()]) as image:
        return np.asarray(image.convert("RGB"))


def _simplejpeg() -> Any:
    """The fast JPEG decoder if it is installed (2.7 times Pillow), else None."""
    try:
        import simplejpeg  # type: ignore[import-not-found]
    except ImportError:
        return None
    return simplejpeg
