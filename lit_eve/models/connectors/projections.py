"""Connectors that map every feature, or every small square of them, by itself.

Shapes: I images, L sets of features, P features an image in each, D their width, S side of the
square that becomes one token, Q tokens an image, E width of the decoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from lit_eve.models.connectors.connector import Connector, only, square_side

Merge = Literal["token", "mean", "channel"]
"""How several sets of features become one: one after another, averaged, side by side."""


class LinearConnector(Connector):
    """One linear layer (LLaVA).

    Args:
        width: D.
        cells: P.
        out_width: E.

    Source:
        Liu et al. 2023, arXiv:2304.08485, section 4.1.
    """

    def __init__(self, width: int, cells: int, out_width: int) -> None:
        super().__init__()
        self.num_tokens, self.out_width = cells, out_width
        self.project = nn.Linear(width, out_width)

    def forward(self, states: Sequence[Tensor]) -> Tensor:
        """(I, P, D) to (I, P, E)."""
        tokens: Tensor = self.project(only(states))
        return tokens


class MlpConnector(Connector):
    """Two linear layers with a GELU between (LLaVA-1.5).

    Args:
        width: D.
        cells: P.
        out_width: E.

    Source:
        Liu et al. 2023, arXiv:2310.03744, section 3.2.
    """

    def __init__(self, width: int, cells: int, out_width: int) -> None:
        super().__init__()
        self.num_tokens, self.out_width = cells, out_width
        self.project = mlp(width, out_width)

    def forward(self, states: Sequence[Tensor]) -> Tensor:
        """(I, P, D) to (I, P, E)."""
        tokens: Tensor = self.project(only(states))
        return tokens


class PixelShuffleConnector(Connector):
    """Squares of S x S features put into one, then a norm and two layers (InternVL 1.5).

    Args:
        width: D.
        cells: P.
        out_width: E.
        side: S.

    Raises:
        ValueError: if the grid cannot be cut into such squares.

    Source:
        Chen et al. 2024, arXiv:2404.16821, section 3.1.
    """

    def __init__(self, width: int, cells: int, out_width: int, side: int) -> None:
        super().__init__()
        self.grid, self.side = square_side(cells), side
        if self.grid % side:
            raise ValueError(
                f"a grid of {self.grid} x {self.grid} features cannot be cut into squares of "
                f"{side}: some would be lost. Make the connector's side a divisor of {self.grid}."
            )
        self.num_tokens, self.out_width = cells // side**2, out_width
        self.norm = nn.LayerNorm(width * side**2)
        self.project = mlp(width * side**2, out_width)

    def forward(self, states: Sequence[Tensor]) -> Tensor:
        """(I, P, D) to (I, P / S^2, E), squares row-major."""
        x = only(states)
        squares, side = self.grid // self.side, self.side
        x = x.reshape(len(x), squares, side, squares, side, x.shape[2])  # (I, g, S, g, S, D)
        x = x.transpose(2, 3).flatten(3).flatten(1, 2)  # (I, Q, S*S*D)
        tokens: Tensor = self.project(self.norm(x))
        return tokens


class DepthBreadthConnector(Connector):
    """Features of several layers and prompts joined, then linear layers (Florence-VL's fusion).

    Args:
        width: D.
        cells: P.
        out_width: E.
        states: number of sets of features: one of every layer, under every prompt.
        merge: `channel` (the paper's choice), `token` or `mean`.
        depth: linear layers behind the joining.

    Source:
        Chen et al. 2024, arXiv:2412.04424, section 3.3.
    """

    def __init__(
        self, width: int, cells: int, out_width: int, states: int, merge: Merge, depth: int = 2
    ) -> None:
        super().__init__()
        self.merge = merge
        self.num_tokens = cells * (states if merge == "token" else 1)
        self.out_width = out_width
        self.project = mlp(width * (states if merge == "channel" else 1), out_width, depth)

    def forward(self, states: Sequence[Tensor]) -> Tensor:
        """L sets of (I, P, D) to (I, Q, E)."""
        match self.merge:
            case "token":
                joined = torch.cat(list(states), dim=1)  # (I, L*P, D)
            case "channel":
                joined = torch.cat(list(states), dim=2)  # (I, P, L*D)
            case "mean":
                joined = torch.stack(list(states)).mean(0)  # (I, P, D)
        tokens: Tensor = self.project(joined)
        return tokens


def mlp(width: int, out_width: int, depth: int = 2) -> nn.Sequential:
    """So many linear layers, a GELU between any two."""
    layers: list[nn.Module] = [nn.Linear(width, out_width)]
    for _ in range(depth - 1):
        layers += [nn.GELU(), nn.Linear(out_width, out_width)]
    return nn.Sequential(*layers)
