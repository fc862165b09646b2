"""Attention with one query per group of keys, in its cheapest exact form.

When a group of S keys has a single query, projecting every key and every value is wasted work:

    (W_q x) . (W_k c_s)    = (W_k' W_q x) . c_s        fold the key weight into the query
    sum_s a_s (W_v c_s)    = W_v (sum_s a_s c_s)       apply the value weight to the weighted sum

so each group costs four width x width products instead of 2 + 2 S, with the same result.

Shapes: M windows over all images, S patches a window, I images, H heads, D width, K = D / H.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class _FoldedAttention(nn.Module):
    """Weights of EVE's cross-attentions: pre-norms, no bias but the output's, scale D ** -0.5.

    Source:
        EVE's `LocalAttention` and `GlobalAttention`; the scale is that of the full width, not of
        a head, so that the published weights mean the same here.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(
                f"patch embedding width {width} is not a multiple of its {heads} heads: each head "
                "needs an equal share. Change model.patch_embedding.width or heads."
            )
        self.width, self.heads = width, heads
        self.scale = width**-0.5
        self.query_norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, width, bias=False)
        self.key_value_norm = nn.LayerNorm(width)
        self.key_value = nn.Linear(width, 2 * width, bias=False)
        self.project = nn.Linear(width, width)

    def _weights(self) -> tuple[Tensor, Tensor]:
        """Key and value weights by head, (H, K, D) each."""
        key, value = self.key_value.weight.view(2, self.heads, -1, self.width).unbind()
        return key, value

    def _fold(self, query: Tensor, key_weight: Tensor) -> Tensor:
        """(M, D) queries to (H, M, D): what to multiply a normalised key with to get its score."""
        projected = self.query(self.query_norm(query)) * self.scale  # (M, D)
        heads = projected.view(len(query), *key_weight.shape[:2])  # (M, H, K)
        return torch.bmm(heads.transpose(0, 1), key_weight)  # (H, M, D)

    def _values(self, weighted: Tensor, value_weight: Tensor) -> Tensor:
        """(H, M, D) weighted sums of normalised keys to (M, D), the attention's output."""
        values = torch.bmm(weighted, value_weight.transpose(1, 2))  # (H, M, K)
        output: Tensor = self.project(values.transpose(0, 1).flatten(1))
        return output  # (M, D)


class WindowAttention(_FoldedAttention):
    """CA1: the average of a window attends to the patches of that window."""

    def forward(self, windows: Tensor) -> Tensor:
        """One token per window.

        Args:
            windows: patch features, (M, S, D).

        Returns:
            (M, D): the average of each window plus what its query found.
        """
        key_weight, value_weight = self._weights()
        # Not `mean`: its gradient would be divided at (M, S, D) instead of at (M, D).
        average = windows.sum(1) * (1 / windows.shape[1])  # (M, D)
        folded = self._fold(average, key_weight).transpose(0, 1)  # (M, H, D)
        keys = self.key_value_norm(windows)  # (M, S, D)
        attention = torch.bmm(folded, keys.transpose(1, 2)).softmax(2)  # (M, H, S)
        weighted = torch.bmm(attention, keys)  # (M, H, D)
        return average + self._values(weighted.transpose(0, 1), value_weight)


class ImageAttention(_FoldedAttention):
    """CA2: one learnable query attends to all windows of an image, for every image at once."""

    def forward(self, query: Tensor, windows: Tensor, image: Tensor, num_images: int) -> Tensor:
        """One token per image.

        Args:
            query: the class embedding, (D,).
            windows: window tokens of all images, (M, D).
            image: image of each window, (M,) int64, non-decreasing.
            num_images: I, so that the device is not asked for it.

        Returns:
            (I, D): the class embedding plus what it found in each image.
        """
        attention, keys = self.attention(query, windows, image, num_images)
        weighted = segment_weighted_sum(attention, keys, image, num_images)  # (H, I, D)
        return query + self._values(weighted, self._weights()[1])

    def attention(
        self, query: Tensor, windows: Tensor, image: Tensor, num_images: int
    ) -> tuple[Tensor, Tensor]:
        """How much the query takes from every window; arguments as of `forward`.

        Returns:
            Shares, (M, H), which sum to 1 over an image, and normalised keys, (M, D).
        """
        folded = self._fold(query[None], self._weights()[0])[:, 0]  # (H, D)
        keys = self.key_value_norm(windows)  # (M, D)
        return segment_softmax(keys @ folded.T, image, num_images), keys


def segment_softmax(scores: Tensor, segment: Tensor, num_segments: int) -> Tensor:
    """Softmax over the rows of each segment.

    Args:
        scores: (M, H).
        segment: segment of each row, (M,) int64.
        num_segments: I.

    Returns:
        (M, H), in float32 at least: sums to 1 over the rows of a segment, column by column.
    """
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    index = segment[:, None].expand_as(scores)  # (M, H)
    lowest = scores.new_full((num_segments, scores.shape[1]), -torch.inf)
    highest = lowest.scatter_reduce(0, index, scores.detach(), "amax")  # (I, H)
    grown = (scores - highest.gather(0, index)).exp()  # (M, H)
    total = torch.zeros_like(highest).scatter_add(0, index, grown)  # (I, H)
    return grown / total.gather(0, index)


def segment_weighted_sum(
    weights: Tensor, values: Tensor, segment: Tensor, num_segments: int
) -> Tensor:
    """Sum of `values` over each segment, once per column of `weights`.

    Args:
        weights: (M, H).
        values: (M, D).
        segment: segment of each row, (M,) int64, non-decreasing.
        num_segments: I.

    Returns:
        (H, I, D).
    """
    num_rows, num_columns = weights.shape
    segments = torch.arange(num_segments, device=segment.device)
    starts = torch.searchsorted(segment, segments)  # (I,)
    column = torch.arange(num_columns, device=segment.device)[:, None]  # (H, 1)
    rows = torch.arange(num_rows, device=segment.device).repeat(num_columns)  # (H * M,)
    # A bag is one segment seen by one column. Nothing of size M x H x D is ever made.
    sums = F.embedding_bag(
        rows,
        values,
        (starts + num_rows * column).flatten(),  # (H * I,)
        mode="sum",
        per_sample_weights=weights.T.flatten().to(values.dtype),
    )
    return sums.view(num_columns, num_segments, values.shape[1])  # (H, I, D)
