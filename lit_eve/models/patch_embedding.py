"""Pixels to visual tokens, all images of a batch in one pass, no canvas and no loop.

Shapes: I images, M windows over all images, S = pool * pool patches a window, C channels,
P patch side, D width of the embedding, E width of the language model, V visual tokens.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_eve.models.attention_pooling import ImageAttention, WindowAttention
from lit_eve_data.batches import ImageLayout, PackedImages


class PatchEmbedding(nn.Module, ABC):
    """What every patch embedding offers to the model, the data and the plan."""

    layout: ImageLayout
    """How an image becomes visual tokens."""
    out_width: int
    """E, the width of a visual token."""

    @abstractmethod
    def forward(self, images: PackedImages) -> Tensor:
        """Visual tokens of all images, (V, E), in the order of `images.visual_source`."""

    @abstractmethod
    def flops(self, rows: int, columns: int) -> int:
        """Forward arithmetic of the published algorithm for one image, 2 per multiply-add."""


class EvePatchEmbedding(PatchEmbedding):
    """EVE's patch embedding layer: patches, local attention, content-dependent `<CLS>`, `<SPL>`.

    Args:
        patch: side of a patch in pixels.
        pool: patches a side of the window that becomes one token.
        width: width of the patch features.
        out_width: width of the language model.
        heads: heads of both cross-attentions.
        channels: channels of the image.

    Raises:
        ValueError: if `heads` does not divide `width`.

    Source:
        Diao et al. 2024, arXiv:2406.11832, section 3.1, as its published code has it: attention
        scale of the full width, residual on the unnormalised average, `<SPL>` after every row, all
        tokens through the feed-forward network. Parameters have the shapes of that code.
    """

    def __init__(
        self, patch: int, pool: int, width: int, out_width: int, heads: int, channels: int = 3
    ) -> None:
        super().__init__()
        self.layout = ImageLayout(patch, pool, cls=True, row_end=True)
        self.out_width = out_width
        self.patches = nn.Conv2d(channels, width, patch, stride=patch, bias=False)
        self.window_attention = WindowAttention(width, heads)
        self.image_attention = ImageAttention(width, heads)
        self.class_embedding = nn.Parameter(torch.empty(width))
        self.row_end_embedding = nn.Parameter(torch.empty(width))
        self.project = nn.Sequential(
            nn.Linear(width, out_width), nn.GELU(), nn.Linear(out_width, out_width)
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the two embeddings; the layers inside have their own."""
        nn.init.normal_(self.class_embedding)
        nn.init.normal_(self.row_end_embedding)

    def forward(self, images: PackedImages) -> Tensor:
        """Visual tokens of all images, (V, E), in the order of `images.visual_source`."""
        windows = self._windows(images)  # (M, D)
        classes = self.image_attention(
            self.class_embedding, windows, images.window_image, images.num_images
        )  # (I, D)
        # The row end is one vector however often it stands: through the network once.
        tokens: Tensor = self.project(torch.cat([windows, classes, self.row_end_embedding[None]]))
        return tokens.index_select(0, images.visual_source)  # (V, E)

    def _windows(self, images: PackedImages) -> Tensor:
        """One feature per window, (M, D)."""
        weight = self.patches.weight.flatten(1)
        features = F.linear(images.patches.to(weight.dtype), weight)  # (M, S, D)
        windows: Tensor = self.window_attention(features)
        return windows

    def class_attention(self, images: PackedImages) -> Tensor:
        """How much `<CLS>` takes from every window, mean over heads: (M,), 1 in sum an image."""
        shares, _ = self.image_attention.attention(
            self.class_embedding, self._windows(images), images.window_image, images.num_images
        )
        return shares.mean(1)

    def flops(self, rows: int, columns: int) -> int:
        """Forward arithmetic of the published algorithm for one image, 2 per multiply-add.

        Published: keys and values of every patch are projected; every visual token, each `<SPL>`
        too, goes through the feed-forward network. `forward` computes the same with less.
        """
        width, inner = self.patches.weight.flatten(1).shape
        out_width = self.out_width
        windows, patches = rows * columns, rows * columns * self.layout.pool**2
        convolution = patches * inner * width
        local = (2 * windows + 2 * patches) * width**2 + 2 * patches * width
        pooled = (2 + 2 * windows) * width**2 + 2 * windows * width
        network = self.layout.num_tokens(rows, columns) * (width + out_width) * out_width
        return 2 * (convolution + local + pooled + network)


class EveV2PatchEmbedding(PatchEmbedding):
    """EVE v2's patch embedding layer: convolution, GELU, convolution; learnt `<CLS>` and `<SPL>`.

    Args:
        patch: side of a patch in pixels, the stride of the first convolution.
        pool: stride of the second convolution.
        width: channels between the two.
        out_width: width of the language model.
        channels: channels of the image.

    Source:
        Diao et al. 2025, arXiv:2502.06788, section 3.1, as its published code has it.
    """

    def __init__(
        self, patch: int, pool: int, width: int, out_width: int, channels: int = 3
    ) -> None:
        super().__init__()
        self.layout = ImageLayout(patch, pool, cls=True, row_end=True)
        self.out_width = out_width
        self.patches = nn.Conv2d(channels, width, patch, stride=patch)
        self.windows = nn.Conv2d(width, out_width, pool, stride=pool)
        self.class_embedding = nn.Parameter(torch.empty(out_width))
        self.row_end_embedding = nn.Parameter(torch.empty(out_width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the two embeddings; the convolutions have their own."""
        nn.init.normal_(self.class_embedding)
        nn.init.normal_(self.row_end_embedding)

    def forward(self, images: PackedImages) -> Tensor:
        """Visual tokens of all images, (V, E), in the order of `images.visual_source`."""
        weight = self.patches.weight.flatten(1)
        patches = F.linear(images.patches.to(weight.dtype), weight, self.patches.bias)
        features = F.gelu(patches).flatten(1)  # (M, S*D)
        weight = self.windows.weight.flatten(2).transpose(1, 2).flatten(1)  # (E, S*D)
        windows = F.linear(features, weight, self.windows.bias)  # (M, E)
        classes = self.class_embedding.expand(images.num_images, -1)  # (I, E)
        tokens = torch.cat([windows, classes, self.row_end_embedding[None]])
        return tokens.index_select(0, images.visual_source)  # (V, E)

    def flops(self, rows: int, columns: int) -> int:
        """Forward arithmetic of the published algorithm for one image, 2 per multiply-add."""
        patches = rows * columns * self.layout.pool**2
        return 2 * rows * columns * self.windows.weight.numel() + 2 * patches * (
            self.patches.weight.numel()
        )


class LinearPatchEmbedding(PatchEmbedding):
    """Fuyu's patch embedding: one linear layer, and a learnt token at the end of every row.

    Args:
        patch: side of a patch in pixels; every patch is one token.
        out_width: width of the language model.
        channels: channels of the image.

    Source:
        Bavishi et al. 2023, Fuyu-8B: a biased linear layer on raw patches and an image-newline
        token; theirs is an entry of the vocabulary, ours a vector of its own.
    """

    def __init__(self, patch: int, out_width: int, channels: int = 3) -> None:
        super().__init__()
        self.layout = ImageLayout(patch, pool=1, cls=False, row_end=True)
        self.out_width = out_width
        self.patches = nn.Linear(channels * patch * patch, out_width)
        self.row_end_embedding = nn.Parameter(torch.empty(out_width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the row end; the linear layer has its own."""
        nn.init.normal_(self.row_end_embedding)

    def forward(self, images: PackedImages) -> Tensor:
        """Visual tokens of all images, (V, E), in the order of `images.visual_source`."""
        pixels = images.patches.squeeze(1).to(self.patches.weight.dtype)
        windows = self.patches(pixels)  # (M, E)
        # `visual_source` leaves a row for a `<CLS>` per image, which this layout never shows.
        row_ends = self.row_end_embedding.expand(images.num_images + 1, -1)  # (I + 1, E)
        return torch.cat([windows, row_ends]).index_select(0, images.visual_source)  # (V, E)

    def flops(self, rows: int, columns: int) -> int:
        """Forward arithmetic for one image, 2 per multiply-add."""
        return 2 * rows * columns * self.patches.weight.numel()
