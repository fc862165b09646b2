"""What ranks tell each other before they have a process group."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
from torch.distributed.rendezvous import rendezvous

_stores: list[Any] = []
"""Rank zero may be its server: it has to live as long as the process."""


def said_by_rank_zero(key: str, say: Callable[[], str]) -> str:
    """What rank zero says; the other ranks of a torchrun launch wait for it.

    Goes through the store at which torchrun lets ranks meet, or the process group if there is one.

    Args:
        key: names the question.
        say: asked on rank zero only.
    """
    if torch.distributed.is_initialized():
        answers: list[Any] = [say() if torch.distributed.get_rank() == 0 else None]
        torch.distributed.broadcast_object_list(answers)
        return str(answers[0])
    if not _stores:
        _stores.append(next(rendezvous("env://"))[0])
    store, name = _stores[0], f"lit_eve/{key}"
    if os.environ["RANK"] == "0":
        store.set(name, say())
    return str(store.get(name).decode())
