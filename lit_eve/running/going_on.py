"""Where a stage goes on: at a checkpoint that one rank has read and told to the rest."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from lit_eve.checkpoints import newest
from lit_eve.checkpoints.files import Report, trust
from lit_eve.strategies import Launch
from lit_eve.strategies.meeting import said_by_rank_zero
from lit_eve.tracking.spool import environment_rank

CHECKPOINT_VARIABLE = "LIT_EVE_CHECKPOINT"
"""Tells processes started for other ranks where rank zero has looked, and what it has found."""


def newest_for_all(directory: Path, spread: Launch, report: Report) -> Path | None:
    """The newest whole checkpoint of a stage, the same on all ranks.

    Rank zero reads every byte; the others take its word and compare sizes.

    Args:
        directory: where the stage's checkpoints lie; all machines see it.
        spread: the run's processes.
        report: told about every checkpoint that is passed over, and why.

    Raises:
        CheckpointError: if another rank does not find there what rank zero has found.
        RuntimeError: if rank zero has looked elsewhere before it started this process.
    """

    def say() -> str:
        return str(newest(directory, report) or "")

    if spread.world_size == 1:
        told = say()
    elif spread.by == "lightning" and not torch.distributed.is_initialized():
        if environment_rank() == 0:  # which starts the others afterwards
            os.environ[CHECKPOINT_VARIABLE] = f"{directory}\n{say()}"
        where, _, told = os.environ[CHECKPOINT_VARIABLE].partition("\n")
        if where != str(directory):
            raise RuntimeError(f"rank zero looked for checkpoints in {where}, not in {directory}.")
    else:
        told = said_by_rank_zero(f"checkpoint in {directory}", say)
    if not told:
        return None
    if environment_rank() > 0:
        trust(Path(told))
    return Path(told)
