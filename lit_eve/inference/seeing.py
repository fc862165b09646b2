"""A teacher looks at every picture of a dataset, once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from lit_eve.assemble.addresses import name_or_path
from lit_eve.models.teacher import Normalisation, Teacher
from lit_eve_data.batches import ImageLayout
from lit_eve_data.disk.features import Features
from lit_eve_data.disk.records import Pixels
from lit_eve_data.encoding.images import ImageCutter, LongestEdge
from lit_eve_data.preparing.features import write_features

_HALF = (0.5, 0.5, 0.5)
_GIVEN = Normalisation(_HALF, _HALF)


def look(teacher: str, layer: int, dataset: Path, progress: Callable[[int, int], None]) -> Path:
    """Compute and keep the features of a dataset's pictures; returns where.

    Args:
        teacher: `hf:owner/name`, or a folder, as experiments name it.
        layer: the hidden state to keep.
        dataset: a prepared one.
        progress: called with samples dealt with and samples in all.

    Raises:
        ValueError: if there is no such teacher, or no whole dataset.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    layout = ImageLayout(patch=1, pool=1, cls=False, row_end=False)
    model = Teacher.pretrained(name_or_path(teacher), layer, layout, _GIVEN)
    eyes = Eyes(model, device)
    return write_features(dataset, teacher, layer, eyes, progress)


class Eyes:
    """Pictures to a teacher's features.

    A picture is scaled once, from its stored size, so that its longer side is the teacher's and
    the other a whole number of its cells, rounded up: as `Teacher` does with a student's pictures,
    which were scaled before.

    Args:
        teacher: of any layout; it is set to read whole cells.
        device: where it works.
    """

    def __init__(self, teacher: Teacher, device: torch.device) -> None:
        layout = ImageLayout(teacher.patch, 1, cls=False, row_end=False)
        teacher.layout = layout
        self.teacher, self.device = teacher, device
        size = LongestEdge(teacher.side, rounding="up")
        self.cutter = ImageCutter(layout, size, _HALF, _HALF)

    def __call__(self, pictures: Sequence[Pixels]) -> list[Features]:
        """Features (rows, columns, D) of each picture."""
        if not pictures:
            return []
        seen = self.teacher(self.cutter.cut(pictures).to(self.device))
        flat = seen.features.to(torch.float16).cpu().numpy()  # (F, D)
        ends = np.cumsum([rows * columns for rows, columns in seen.grids])
        parts = np.split(flat, ends[:-1])
        return [part.reshape(*grid, -1) for part, grid in zip(parts, seen.grids, strict=True)]
