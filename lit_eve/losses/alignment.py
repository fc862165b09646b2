"""Distance between a student's features and a teacher's.

Shapes: I images, F cells over all images, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_eve.losses.next_token import LossSum

Distance = Literal["cosine", "mse"]
"""cosine: 1 - cos. mse: mean over channels of the squared difference of the features, each of
length 1; since |a - b|^2 = 2 (1 - cos), it is 2 / C of the other, and its weight not comparable."""


def alignment_loss(
    features: Tensor,
    target: Tensor,
    grids: Sequence[tuple[int, int]],
    distance: Distance = "cosine",
) -> LossSum:
    """Distance to the teacher, averaged over an image's cells and then summed over images.

    Args:
        features: the student's, (F, C).
        target: the teacher's, (F, C); no gradient goes there.
        grids: (rows, columns) of cells of every image.
        distance: what is averaged.

    Returns:
        Sum over images of their average, and the number of images; 0 and 0, with a graph, if
        there are none.

    Raises:
        ValueError: if the features do not have the teacher's shape.

    Source:
        Diao et al. 2024, arXiv:2406.11832: section 3.1 has a mean squared error of normalised
        features; the published code has 1 - cos, and its weight of 1 belongs to that.
    """
    if features.shape != target.shape:
        raise ValueError(
            f"the student has features {tuple(features.shape)}, the teacher {tuple(target.shape)}: "
            "one is compared with the other cell by cell. Give the patch alignment the teacher's "
            "width and grids."
        )
    cells = torch.tensor([rows * columns for rows, columns in grids], dtype=torch.int64)  # (I,)
    share = (1 / cells).repeat_interleave(cells)  # (F,), worked out by the host
    cosine = F.cosine_similarity(features.float(), target.detach().float(), dim=1)  # (F,)
    factor = 1.0 if distance == "cosine" else 2 / features.shape[1]
    each = factor * (1 - cosine) * share.to(cosine.device, non_blocking=True)  # (F,)
    return LossSum(each.sum(), torch.full((), len(grids), device=each.device))
