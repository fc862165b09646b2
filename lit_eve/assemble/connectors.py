"""Connectors of the baselines from the experiment file's words: one visible table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lit_eve.models.connectors.connector import Connector
from lit_eve.models.connectors.projections import (
    DepthBreadthConnector,
    LinearConnector,
    MlpConnector,
    PixelShuffleConnector,
)
from lit_eve.models.connectors.resamplers import (
    AbstractorConnector,
    PerceiverConnector,
    QFormerConnector,
)
from lit_eve.models.vision_encoder import VisionEncoder
from lit_eve.schema import encoders

Options = Any
"""A block of the schema; each function of the table knows its own class."""


def _linear(options: encoders.Linear, encoder: VisionEncoder, out_width: int) -> Connector:
    return LinearConnector(encoder.width, encoder.cells, out_width)


def _mlp(options: encoders.Mlp, encoder: VisionEncoder, out_width: int) -> Connector:
    return MlpConnector(encoder.width, encoder.cells, out_width)


def _pixel_shuffle(
    options: encoders.PixelShuffle, encoder: VisionEncoder, out_width: int
) -> Connector:
    return PixelShuffleConnector(encoder.width, encoder.cells, out_width, options.side)


def _depth_breadth(
    options: encoders.DepthBreadth, encoder: VisionEncoder, out_width: int
) -> Connector:
    return DepthBreadthConnector(
        encoder.width, encoder.cells, out_width, encoder.num_states, options.merge, options.depth
    )


def _q_former(options: encoders.QFormer, encoder: VisionEncoder, out_width: int) -> Connector:
    return QFormerConnector(
        encoder.width, out_width, options.queries, options.width, options.depth, options.heads
    )


def _perceiver(options: encoders.Perceiver, encoder: VisionEncoder, out_width: int) -> Connector:
    return PerceiverConnector(
        encoder.width, encoder.cells, out_width, options.queries, options.depth, options.heads
    )


def _c_abstractor(
    options: encoders.CAbstractor, encoder: VisionEncoder, out_width: int
) -> Connector:
    return AbstractorConnector(
        encoder.width, encoder.cells, out_width, options.queries, options.width, options.depth
    )


CONNECTORS: Mapping[str, Callable[[Options, VisionEncoder, int], Connector]] = {
    "linear": _linear,
    "mlp": _mlp,
    "pixel_shuffle": _pixel_shuffle,
    "depth_breadth": _depth_breadth,
    "q_former": _q_former,
    "perceiver": _perceiver,
    "c_abstractor": _c_abstractor,
}
