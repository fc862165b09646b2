"""Picture files to codes and back, through a trained tokenizer.

A file of codes is a safetensors file: the codes of picture i as `codes.<i>`, and as metadata the
format, a fingerprint of the tokenizer, and each picture's name, size and grid.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image, ImageOps
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lit_eve.models.tokenizers.choices import check_choice
from lit_eve.models.tokenizers.image_tokenizer import ImageTokenizer
from lit_eve.models.tokenizers.pixels import check_size
from lit_eve.models.tokenizers.quantizer import WHOLE, Grid
from lit_eve_data.sources.validation import plain_rgb

FORMAT = "lit-eve codes 1"

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
"""Endings of the files that are taken from a folder."""

Fit = Literal["exact", "crop", "resize"]
"""Sizes that do not divide into cells: an error, cut off evenly, or changed to the nearest."""

Progress = Callable[[int, str], None]
"""Called with how many pictures are done, and a picture's name."""


@dataclass(frozen=True)
class EncodedImages:
    """Codes of pictures, in order."""

    names: tuple[str, ...]
    sizes: tuple[tuple[int, int], ...]
    """(height, width) in pixels of what was encoded."""
    grids: tuple[Grid, ...]
    codes: tuple[Tensor, ...]
    """int64, each without an axis for images."""
    tokenizer: str
    """`fingerprint` of the tokenizer."""


def encode_files(
    tokenizer: ImageTokenizer,
    paths: Sequence[Path],
    fit: Fit = "exact",
    batch: int = 16,
    progress: Progress | None = None,
) -> EncodedImages:
    """Codes of picture files of any sizes.

    Args:
        tokenizer: a discrete one.
        paths: picture files; the camera's rotation is applied, what is transparent becomes white.
        fit: what is done about sizes that do not divide into cells.
        batch: pictures read at once; those of one size go through the tokenizer together.
        progress: told after every batch.

    Raises:
        ValueError: if there are no files, one cannot be read or does not fit, or the tokenizer is
            continuous.
    """
    if not paths:
        raise ValueError("no pictures to encode: name at least one file.")
    device = next(tokenizer.parameters()).device
    codes: list[Tensor] = []
    sizes: list[tuple[int, int]] = []
    for start in range(0, len(paths), batch):
        part = paths[start : start + batch]
        images = [read_image(path, tokenizer.stride, fit) for path in part]
        sizes += [(image.shape[1], image.shape[2]) for image in images]
        codes += [found.cpu() for found in tokenizer.encode([i.to(device) for i in images])]
        if progress is not None:
            progress(len(codes), str(part[-1]))
    stride = tokenizer.stride
    return EncodedImages(
        tuple(str(path) for path in paths),
        tuple(sizes),
        tuple((height // stride, width // stride) for height, width in sizes),
        tuple(codes),
        fingerprint(tokenizer),
    )


def decode_images(
    tokenizer: ImageTokenizer, encoded: EncodedImages, batch: int = 16
) -> Iterator[tuple[str, Image.Image]]:
    """Names and pictures of codes, in order.

    Raises:
        ValueError: if the codes were made by another tokenizer.
    """
    if encoded.tokenizer != fingerprint(tokenizer):
        raise ValueError(
            "these codes were made by another tokenizer, or by an earlier state of this one: its "
            "codes mean other pictures. Decode with the run that encoded them."
        )
    device = next(tokenizer.parameters()).device
    for start in range(0, len(encoded.codes), batch):
        part = slice(start, start + batch)
        codes = [found.to(device) for found in encoded.codes[part]]
        pictures = tokenizer.decode(codes, encoded.grids[part])
        for name, picture in zip(encoded.names[part], pictures, strict=True):
            array = (picture.movedim(0, -1) * 255).round().to(torch.uint8).cpu().numpy()
            yield name, Image.fromarray(array)


def save_codes(encoded: EncodedImages, path: Path) -> None:
    """Write a file of codes; one that has its name is whole.

    Raises:
        OSError: if it cannot be written.
    """
    tensors = {f"codes.{n}": _smallest(codes) for n, codes in enumerate(encoded.codes)}
    metadata = {
        "format": FORMAT,
        "tokenizer": encoded.tokenizer,
        "names": json.dumps(encoded.names),
        "sizes": json.dumps(encoded.sizes),
        "grids": json.dumps(encoded.grids),
    }
    half = path.with_name(path.name + ".part")
    save_file(tensors, half, metadata)
    os.replace(half, path)


def load_codes(path: Path) -> EncodedImages:
    """Read a file of codes.

    Raises:
        ValueError: if it is none.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata: Mapping[str, str] = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise ValueError(
                    f"{path} is no file of codes: its format is {metadata.get('format')!r}, not "
                    f"{FORMAT!r}. Make one with `lit-eve encode`."
                )
            count = len(file.keys())
            codes = tuple(file.get_tensor(f"codes.{n}") for n in range(count))
        names = tuple(json.loads(metadata["names"]))
        sizes, grids = _pairs(metadata["sizes"]), _pairs(metadata["grids"])
        tokenizer = metadata["tokenizer"]
    except (OSError, SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} cannot be read as a file of codes: {error!r}") from error
    if not len(codes) == len(names) == len(sizes) == len(grids):
        raise ValueError(
            f"{path} has the codes of {len(codes)} pictures, but names of {len(names)}, sizes of "
            f"{len(sizes)} and grids of {len(grids)}: it is not as it was written. Encode again."
        )
    for name, found in zip(names, codes, strict=True):
        if found.dtype not in WHOLE:
            raise ValueError(
                f"{path}: the codes of {name} are {found.dtype}, but codes are whole numbers: "
                "something else changed this file. Encode again."
            )
    return EncodedImages(names, sizes, grids, tuple(found.long() for found in codes), tokenizer)


def pictures_in(places: Sequence[Path]) -> list[Path]:
    """Picture files: those that are named, and all in folders that are, by name.

    Raises:
        ValueError: if a place is not there, or a folder holds no pictures.
    """
    found: list[Path] = []
    for place in places:
        inside = [place]
        if place.is_dir():
            inside = [f for f in sorted(place.rglob("*")) if f.suffix.lower() in SUFFIXES]
        if not inside or not inside[0].is_file():
            raise ValueError(
                f"{place} is no picture and no folder of pictures ({', '.join(SUFFIXES)}): "
                "there is nothing to encode."
            )
        found += inside
    return found


def read_image(path: Path, stride: int, fit: Fit = "exact") -> Tensor:
    """A picture file as (3, H, W) in [0, 1].

    Raises:
        ValueError: if it cannot be read, or with `exact`, if its size does not divide into cells;
            if `fit` is unknown.
    """
    check_choice("fit", fit, Fit)
    try:
        with Image.open(path) as file:
            image = plain_rgb(ImageOps.exif_transpose(file))
    except Exception as error:  # Pillow's decoders raise anything over damaged bytes
        raise ValueError(f"{path} cannot be read as a picture: {error}") from error
    if fit == "exact":
        try:
            check_size(image.height, image.width, stride)
        except ValueError as error:
            raise ValueError(f"{path}: {error} Or encode with `crop` or `resize`.") from error
    elif fit == "crop":
        image = _cropped(image, stride)
    else:
        sides = [max(stride, round(side / stride) * stride) for side in image.size]
        image = image.resize((sides[0], sides[1]), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(image)).movedim(-1, 0).float() / 255


def fingerprint(tokenizer: ImageTokenizer) -> str:
    """A hash of everything that decides what a code means: all weights but the discriminator's."""
    digest = hashlib.sha256(type(tokenizer.quantizer).__name__.encode())
    for name, tensor in sorted(tokenizer.state_dict().items()):
        if not name.startswith("discriminator."):
            values = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
            digest.update(f"{name} {tuple(tensor.shape)}".encode())
            digest.update(values.numpy().tobytes())
    return digest.hexdigest()[:32]


def _cropped(image: Image.Image, stride: int) -> Image.Image:
    width, height = (side // stride * stride for side in image.size)
    if not width or not height:
        raise ValueError(
            f"a picture of {image.height} x {image.width} pixels is smaller than one cell of "
            f"{stride} x {stride}: encode it with `resize`."
        )
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def _smallest(codes: Tensor) -> Tensor:
    """Codes in the smallest whole numbers that hold them."""
    dtype = torch.int16 if int(codes.max()) < 2**15 else torch.int32
    return codes.to(dtype).contiguous()


def _pairs(text: str) -> tuple[tuple[int, int], ...]:
    pairs: Any = json.loads(text)
    return tuple((int(first), int(second)) for first, second in pairs)
