"""Small checkpoints to look at and to damage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from lit_eve.checkpoints import AtomicCheckpointIO, files


def content(step: int, size: int = 100) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(step)
    state = {"model.weight": torch.randn(size, generator=generator)}
    return {"global_step": step, "state_dict": state, "epoch": 0}


def save(directory: Path, step: int, size: int = 100) -> Path:
    path = directory / files.checkpoint_name(step)
    AtomicCheckpointIO().save_checkpoint(content(step, size), path)
    return path


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())
