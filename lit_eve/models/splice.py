"""Visual tokens into rows of text. Shapes: R rows, T slots a row, V visual tokens, E width."""

from __future__ import annotations

from torch import Tensor


def splice(embeddings: Tensor, visual: Tensor, slots: Tensor) -> Tensor:
    """Put visual tokens where the rows keep room for them.

    Args:
        embeddings: embedded rows, (R, T, E); left as they are.
        visual: visual tokens, (V, E).
        slots: `row * T + slot` of every visual token, (V,) int64, each at most once.

    Returns:
        (R, T, E): `visual` at `slots`, `embeddings` elsewhere. The gradient of an overwritten
        slot's embedding is zero.
    """
    rows = embeddings.flatten(0, 1)  # (R*T, E)
    return rows.index_copy(0, slots, visual.to(rows.dtype)).view_as(embeddings)  # (R, T, E)
