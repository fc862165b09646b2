"""EVE's layers restated plainly: one image at a time, convolutions, every key projected."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_eve.models.attention_pooling import ImageAttention, WindowAttention
from lit_eve.models.patch_embedding import EvePatchEmbedding, EveV2PatchEmbedding


def attend(layer: WindowAttention | ImageAttention, query: Tensor, keys: Tensor) -> Tensor:
    """One query (D,) over keys (S, D), every key and value projected."""
    width, heads = len(query), layer.heads
    q = layer.query(layer.query_norm(query)).view(heads, -1)  # (H, K)
    k, v = layer.key_value(layer.key_value_norm(keys)).split(width, dim=1)  # (S, D) each
    k, v = k.view(len(keys), heads, -1), v.view(len(keys), heads, -1)  # (S, H, K)
    scores = torch.einsum("hk,shk->sh", q, k) * width**-0.5
    found = torch.einsum("sh,shk->hk", scores.softmax(0), v).flatten()  # (D,)
    token: Tensor = query + layer.project(found)
    return token


def eve_tokens(layer: EvePatchEmbedding, image: Tensor) -> Tensor:
    """Visual tokens of one image (C, H, W), each window on its own."""
    pool = layer.layout.pool
    features = F.conv2d(image[None], layer.patches.weight, stride=layer.layout.patch)[0]
    _, height, columns = features.shape
    grid = []
    for y in range(0, height, pool):
        row = []
        for x in range(0, columns, pool):
            window = features[:, y : y + pool, x : x + pool].flatten(1).T  # (S, D)
            row.append(attend(layer.window_attention, window.mean(0), window))
        grid.append(row)
    windows = torch.stack([token for row in grid for token in row])
    sequence = [attend(layer.image_attention, layer.class_embedding, windows)]
    for row in grid:
        sequence += [*row, layer.row_end_embedding]
    tokens: Tensor = layer.project(torch.stack(sequence))
    return tokens


def eve_v2_tokens(layer: EveV2PatchEmbedding, image: Tensor) -> Tensor:
    """Visual tokens of one image (C, H, W), by two convolutions."""
    grid = layer.windows(F.gelu(layer.patches(image[None])))[0]  # (E, rows, columns)
    sequence: list[Tensor] = [layer.class_embedding]
    for row in grid.permute(1, 2, 0):
        sequence += [*row, layer.row_end_embedding]
    return torch.stack(sequence)
