"""Pictures and tables into a spool: saved as files beside it, named by key and step."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from lit_eve.tracking.pictures import Picture, as_image, grid
from lit_eve.tracking.spool import Spool

_log = logging.getLogger(__name__)


def log_images(
    spool: Spool,
    key: str,
    step: int,
    pictures: Sequence[Picture],
    captions: Sequence[str] = (),
    columns: int | None = None,
) -> None:
    """Record pictures as one grid, a single picture as it is.

    Args:
        spool: where to.
        key: group and name, `val/reconstructions`: one card with a step slider.
        step: the optimizer step.
        pictures: Pillow images or arrays as `pictures.as_image` takes them.
        captions: as many as pictures, or none.
        columns: pictures a row, by default the most square arrangement.

    Raises:
        ValueError: if there is no picture, or the captions do not match.
    """
    if not spool.writes or spool.recorded("i:" + key, step):
        return
    single = len(pictures) == 1 and not captions
    sheet = as_image(pictures[0]) if single else grid(pictures, captions, columns)
    path = _save(spool, sheet, f"{_folder(key)}/{step:09d}.png")
    if path is not None:
        spool.image(key, step, path)


def log_table(spool: Spool, name: str, step: int, rows: Sequence[Mapping[str, object]]) -> None:
    """Record rows of one step; cells that are pictures are shown as such.

    Args:
        spool: where to.
        name: the table's name, `answers`. All rows of a table have the same columns.
        step: the optimizer step.
        rows: column to cell: text, number, truth value, Pillow image or array.

    Raises:
        ValueError: if the rows differ in their columns.
    """
    if not spool.writes or spool.recorded("t:" + name, step):
        return
    columns = list(rows[0]) if rows else []
    saved: list[dict[str, object]] = []
    for number, row in enumerate(rows):
        if list(row) != columns:
            raise ValueError(
                f"row {number} of table '{name}' has the columns {list(row)}, the first row has "
                f"{columns}: give every row the same columns in the same order."
            )
        cells = dict(row)
        for column, cell in row.items():
            if isinstance(cell, Image.Image | np.ndarray):
                file = f"{_folder(name)}/{step:09d}/{number:04d}-{_folder(column)}.png"
                cells[column] = _save(spool, as_image(cell), file) or "(not saved)"
        saved.append(cells)
    spool.table(name, step, saved)


def _folder(key: str) -> str:
    return "".join(c if c.isalnum() or c in "._-" else "." for c in key)


def _save(spool: Spool, image: Image.Image, name: str) -> Path | None:
    """Save beside the final name, then rename: a file that has its name is whole."""
    try:
        path = spool.media(name)
        half = path.with_suffix(".part")
        image.save(half, format="PNG", compress_level=1)
        os.replace(half, path)
    except OSError as error:
        _log.warning("the picture %s was not kept: %s. The training goes on.", name, error)
        return None
    return path
