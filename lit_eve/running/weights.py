"""Weights of a stage into a model, every tensor of it or none."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], file: Path) -> None:
    """Fill a model from weights that were read from `file`.

    Raises:
        ValueError: naming what is missing or unknown.
    """
    missing, unknown = model.load_state_dict(weights, strict=False)
    if missing or unknown:
        raise ValueError(
            f"{file} does not hold this model: missing {missing[:5]}, unknown {unknown[:5]}. "
            "The experiment file changed since the weights were written; use the run's own."
        )
