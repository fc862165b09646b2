"""Hidden states of the decoder at image positions towards the features of a teacher.

Shapes: R rows, T slots a row, I images, M windows, V visual tokens, F cells of the teacher's grids
over all images, L layers read, E width of the decoder, D working width, C width of the teacher,
H heads, K = D / H.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lit_eve.models.grid_pooling import GridPooling, Grids
from lit_eve_data.batches import PackedBatch


class PatchAlignment(nn.Module):
    """EVE's patch aligning layer: the last layer's states ask those of the layers below.

    Args:
        decoder_width: E.
        depth: layers of the decoder.
        width: D, what the layers' states are projected to and compared in.
        teacher_width: C.
        heads: H.
        every: read every n-th hidden state, from the last downwards.

    Raises:
        ValueError: if `heads` does not divide `width`, or fewer than two layers would be read.

    Source:
        Diao et al. 2024, arXiv:2406.11832, section 3.1, as its published code has it: keys and
        values are the same projected states, the embedding layer is read where the count comes to
        0, the scale is that of the full width, and the residual skips the norms. There D = C.
    """

    def __init__(
        self,
        decoder_width: int,
        depth: int,
        width: int,
        teacher_width: int,
        heads: int,
        every: int,
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(
                f"patch alignment width {width} is not a multiple of its {heads} heads: each head "
                "needs an equal share. Change model.patch_alignment.width or heads."
            )
        if not 1 <= every <= depth:
            raise ValueError(
                f"reading every {every}-th hidden state of a decoder with {depth} layers leaves "
                "nothing below the last to attend to. "
                f"Make model.patch_alignment.every at least 1 and at most {depth}."
            )
        self.layers = tuple(range(depth, -1, -every))
        self.heads, self.scale = heads, width**-0.5
        self.norms = nn.ModuleList(nn.LayerNorm(decoder_width) for _ in self.layers)
        self.projections = nn.ModuleList(
            nn.Linear(decoder_width, width, bias=False) for _ in self.layers
        )
        self.residual = nn.Linear(decoder_width, teacher_width)
        self.output = nn.Linear(width, teacher_width)

    def forward(
        self, layer_states: Mapping[int, Tensor], batch: PackedBatch, grids: Grids
    ) -> Tensor:
        """Features to compare with the teacher's.

        Args:
            layer_states: at least the hidden states of `self.layers`, by number, (R, T, E) each.
            batch: the batch they were computed from; any number of images a sample.
            grids: (rows, columns) of the teacher's features of every image.

        Returns:
            (F, C): cells row-major, images in order. `<CLS>` and `<SPL>` have no part in it.
        """
        slots = window_slots(batch)  # (M,)
        if tuple(grids) == batch.images.grids:
            pooled = [layer_states[n].flatten(0, 1).index_select(0, slots) for n in self.layers]
        else:
            pooling = GridPooling.between(batch.images.grids, grids, slots.device)
            pooled = [pooling.average(layer_states[n].flatten(0, 1), slots) for n in self.layers]
        return self._attend(pooled)

    def _attend(self, pooled: list[Tensor]) -> Tensor:
        """L times (F, E), the last layer first, to (F, C)."""
        projected = [
            projection(norm(states))
            for norm, projection, states in zip(self.norms, self.projections, pooled, strict=True)
        ]
        shape = (len(pooled[0]), self.heads, self.output.in_features // self.heads)
        query = projected[0].view(*shape, 1)  # (F, H, K, 1)
        keys = torch.stack(projected[1:], 2).view(*shape, len(self.layers) - 1)  # (F, H, K, L-1)
        scores = (query * self.scale * keys).sum(2, keepdim=True)  # (F, H, 1, L-1)
        found = (scores.softmax(3) * keys).sum(3).flatten(1)  # (F, D)
        features: Tensor = self.residual(pooled[0]) + self.output(found)
        return features  # (F, C)


def window_slots(batch: PackedBatch) -> Tensor:
    """Where each window stands in the rows: `row * T + slot`, (M,) int64."""
    num_windows = len(batch.images.window_image)
    # A window is shown once; `<CLS>` and `<SPL>`, which follow the windows, are dropped.
    places = batch.image_slots.new_zeros(num_windows + batch.images.num_images + 1)
    return places.scatter(0, batch.images.visual_source, batch.image_slots)[:num_windows]
