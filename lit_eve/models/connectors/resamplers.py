"""Connectors that give a fixed number of tokens, learnt queries or pooled cells.

Shapes: I images, P features an image, D their width, Q tokens an image, H inner width, E width of
the decoder.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Blip2QFormerConfig, Blip2QFormerModel

from lit_eve.models.connectors.connector import Connector, only, square_side
from lit_eve.models.connectors.projections import mlp


class QFormerConnector(Connector):
    """Learnt queries in a small transformer that looks at the features (BLIP-2).

    Args:
        width: D.
        out_width: E.
        queries: Q.
        inner: H.
        depth: layers; every second one looks at the image, beginning with the first.
        heads: of attention.

    Source:
        Li et al. 2023, arXiv:2301.12597, section 3.1 and 3.3; the transformer is Hugging Face's.
    """

    def __init__(
        self, width: int, out_width: int, queries: int, inner: int, depth: int, heads: int
    ) -> None:
        super().__init__()
        self.num_tokens, self.out_width = queries, out_width
        self.queries = nn.Parameter(torch.empty(queries, inner))
        self.transformer = Blip2QFormerModel(
            Blip2QFormerConfig(
                hidden_size=inner,
                num_hidden_layers=depth,
                num_attention_heads=heads,
                intermediate_size=4 * inner,
                encoder_hidden_size=width,
                cross_attention_frequency=2,
            )
        )
        self.project = nn.Linear(inner, out_width)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the queries; the layers have their own."""
        nn.init.normal_(self.queries, std=0.02)

    def forward(self, states: Sequence[Tensor]) -> Tensor:
        """(I, P, D) to (I, Q, E)."""
        features = only(states)
        queries = self.queries.expand(len(features), -1, -1)  # (I, Q, H)
        seen = self.transformer(query_embeds=queries, encoder_hidden_states=features)
        tokens: Tensor = self.project(seen.last_hidden_state)
        return tokens


class PerceiverConnector(Connector):
    """Learnt latents that look at the features and at each other, layer by layer (Flamingo).

    Args:
        width: D.
        cells: P.
        out_width: E.
        queries: Q.
        depth: layers.
        heads: of attention.

    Source:
        Alayrac et al. 2022, arXiv:2204.14198, section 3.1 and figure 5: keys and values are the
        features and the latents together; squared ReLU in the feed-forward. For one frame, so its
        time embedding is left out; places are told apart by a learnt one.
    """

    def __init__(
        self, width: int, cells: int, out_width: int, queries: int, depth: int, heads: int
    ) -> None:
        super().__init__()
        self.num_tokens, self.out_width = queries, out_width
        self.latents = nn.Parameter(torch.empty(queries, width))
        self.places = nn.Parameter(torch.empty(cells, width))
        self.layers = nn.ModuleList(_PerceiverLayer(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.project = nn.Linear(width, out_width)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw latents and places; the layers have their own."""
        nn.init.normal_(self.latents, std=0.02)
        nn.init.normal_(self.places, std=0.02)

    def forward(self, states: Sequence[Tensor]) -> Tensor:
        """(I, P, D) to (I, Q, E)."""
        features = only(states) + self.places  # (I, P, D)
        latents = self.latents.expand(len(features), -1, -1)  # (I, Q, D)
        for layer in self.layers:
            latents = layer(latents, features)
        tokens: Tensor = self.project(self.norm(latents))
        return tokens


class _PerceiverLayer(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.latent_norm, self.feature_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(width, 2 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.ffn_norm = nn.LayerNorm(width)
        self.rise = nn.Linear(width, 4 * width, bias=False)
        self.fall = nn.Linear(4 * width, width, bias=False)

    def forward(self, latents: Tensor, features: Tensor) -> Tensor:
        """(I, Q, D) and (I, P, D) to (I, Q, D)."""
        normed = self.latent_norm(latents)
        looked_at = torch.cat([self.feature_norm(features), normed], 1)  # (I, P + Q, D)
        query = split_heads(self.query(normed), self.heads)  # (I, heads, Q, d)
        key, value = (
            split_heads(part, self.heads) for part in self.key_value(looked_at).chunk(2, -1)
        )
        seen = F.scaled_dot_product_attention(query, key, value)
        latents = latents + self.out(seen.transpose(1, 2).flatten(2))
        inner = F.relu(self.rise(self.ffn_norm(latents))).square()
        result: Tensor = latents + self.fall(inner)
        return result


class AbstractorConnector(Connector):
    """Residual convolutions, pooling to a smaller grid, more of them (Honeybee's C-Abstractor).

    Args:
        width: D.
        cells: P.
        out_width: E.
        queries: Q, a square number.
        inner: H.
        depth: residual blocks before the pooling, and again after it.

    Raises:
        ValueError: if `cells` or `queries` is no square number.

    Source:
        Cha et al. 2023, arXiv:2312.06742, section 3.2, as its published code has it: learnt
        positions, bottleneck blocks of RegNet with a depthwise convolution and
        squeeze-and-excitation, norms over channels, average pooling, a readout of two layers.
    """

    def __init__(
        self, width: int, cells: int, out_width: int, queries: int, inner: int, depth: int
    ) -> None:
        super().__init__()
        self.num_tokens, self.out_width = queries, out_width
        self.grid, self.pooled = square_side(cells), square_side(queries)
        self.places = nn.Parameter(torch.empty(cells, width))
        self.enter = nn.Conv2d(width, inner, 1)
        self.before = nn.Sequential(*(_ResidualBlock(inner) for _ in range(depth)))
        self.after = nn.Sequential(*(_ResidualBlock(inner) for _ in range(depth)))
        self.project = mlp(inner, out_width)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the places; the layers have their own."""
        nn.init.normal_(self.places, std=0.02)

    def forward(self, states: Sequence[Tensor]) -> Tensor:
        """(I, P, D) to (I, Q, E)."""
        x = (only(states) + self.places).transpose(1, 2)  # (I, D, P)
        x = self.before(self.enter(x.view(*x.shape[:2], self.grid, self.grid)))  # (I, H, G, G)
        x = self.after(F.adaptive_avg_pool2d(x, self.pooled))  # (I, H, g, g)
        tokens: Tensor = self.project(x.flatten(2).transpose(1, 2))
        return tokens


class _ChannelNorm(nn.LayerNorm):
    """Normalises the channels of every cell of (I, H, G, G)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class _ResidualBlock(nn.Module):
    """1x1, depthwise 3x3, squeeze-and-excitation, 1x1, around a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.enter = nn.Conv2d(width, width, 1, bias=False)
        self.look_round = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        self.leave = nn.Conv2d(width, width, 1, bias=False)
        self.norms = nn.ModuleList(_ChannelNorm(width) for _ in range(3))
        squeezed = max(1, width // 4)
        self.excite = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(width, squeezed, 1),
            nn.SiLU(),
            nn.Conv2d(squeezed, width, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(I, H, G, G) to the same."""
        inner = F.silu(self.norms[0](self.enter(x)))
        inner = F.silu(self.norms[1](self.look_round(inner)))
        inner = self.norms[2](self.leave(inner * self.excite(inner)))
        return F.silu(x + inner)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(I, n, heads * d) to (I, heads, n, d)."""
    return x.view(*x.shape[:2], heads, x.shape[2] // heads).transpose(1, 2)
