"""How long a stage is, and who reads its data."""

from __future__ import annotations

import os
from collections.abc import Mapping
from math import ceil

import torch

from lit_eve.schema.running import Hardware
from lit_eve.schema.units import Budget


def num_steps(budget: Budget, per_step: Mapping[str, float]) -> int:
    """Optimizer steps that a stage's `for:` amounts to.

    Args:
        budget: that length.
        per_step: how much of each unit a step takes.
    """
    return max(1, ceil(budget.amount / per_step[budget.unit]))


def num_workers(hardware: Hardware) -> int:
    """Processes that read data: none on a CPU, where they would take the training's cores."""
    if hardware.workers != "auto":
        return hardware.workers
    if not torch.cuda.is_available():
        return 0
    return min(8, max(1, (os.cpu_count() or 1) // max(1, torch.cuda.device_count()) - 1))
