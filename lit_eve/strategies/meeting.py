"""What ranks tell each other before they have a process group."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from torch.distributed import TCPStore  # type: ignore[attr-defined]  # public, not in __all__
from torch.distributed.constants import default_pg_timeout
from torch.distributed.rendezvous import rendezvous

_stores: list[Any] = []
"""Rank zero may be its server: it has to live as long as the process."""


def said_by_rank_zero(key: str, say: Callable[[], str]) -> str:
    """What rank zero says; the other ranks of a launch by torchrun or SLURM wait for it.

    Goes through the store at which torchrun lets ranks meet, under SLURM one of rank zero's, or the
    process group if there is one.

    Args:
        key: names the question.
        say: asked on rank zero only.
    """
    if torch.distributed.is_initialized():
        answers: list[Any] = [say() if torch.distributed.get_rank() == 0 else None]
        torch.distributed.broadcast_object_list(answers)
        return str(answers[0])
    (store, rank, _), name = _meet(), _name(key)
    if rank == 0:
        store.set(name, say())
    return str(store.get(name).decode())


def said_by_all(key: str, mine: str) -> list[str]:
    """What every rank says, in order; each waits for the slowest.

    Args:
        key: names the question.
        mine: this rank's answer.
    """
    if torch.distributed.is_initialized():
        answers: list[Any] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(answers, mine)
        return [str(answer) for answer in answers]
    (store, rank, world), name = _meet(), _name(key)
    store.set(f"{name}/{rank}", mine)
    return [str(store.get(f"{name}/{other}").decode()) for other in range(world)]


def _meet() -> tuple[Any, int, int]:
    """Where ranks meet, this rank, and how many there are."""
    env = os.environ
    if "TORCHELASTIC_RUN_ID" in env:
        rank, world = int(env["RANK"]), int(env["WORLD_SIZE"])
        if not _stores:
            _stores.append(next(rendezvous("env://"))[0])
        return _stores[0], rank, world
    slurm = SLURMEnvironment(auto_requeue=False)
    rank, world = slurm.global_rank(), slurm.world_size()
    if not _stores:  # beside the port of the process group
        address, port = slurm.main_address, slurm.main_port + 1
        store = TCPStore(address, port, world, rank == 0, default_pg_timeout)
        _stores.append(store)
    return _stores[0], rank, world


def _name(key: str) -> str:
    """Unlike that of a start before a restart, whose answers the store still has."""
    return f"lit_eve/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}/{key}"
