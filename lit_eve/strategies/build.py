"""From the names of the experiment file to a strategy."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

import torch
from lightning.pytorch.strategies import Strategy

from lit_eve.strategies.replicated import ReplicatedStrategy
from lit_eve.strategies.sharded import ShardedStrategy

StrategyName = Literal["auto", "ddp", "fsdp", "hsdp"]


@dataclass(frozen=True)
class Sharding:
    """What only `fsdp` and `hsdp` take; see `ShardedStrategy`."""

    replicate: int | None = None
    """Copies of the sharded model under `hsdp`; None is one per node."""
    gather_dtype: torch.dtype | None = None
    offload: bool = False
    sharded_checkpoints: bool = True
    background: bool = False
    reduce_every_micro_batch: bool = False
    hollow: bool = False

    def __post_init__(self) -> None:
        if self.background and not self.sharded_checkpoints:
            raise ValueError(
                "background is an option of sharded checkpoints; one file for all is written in "
                "the background by AtomicCheckpointIO(background=True)."
            )


def build_strategy(
    name: StrategyName,
    devices: int,
    nodes: int = 1,
    *,
    sharding: Sharding | None = None,
    find_unused: bool = False,
    timeout: timedelta = timedelta(minutes=30),
) -> Strategy | str:
    """The strategy for `Trainer(strategy=...)`.

    Args:
        name: `auto` is one device, or `ddp` on several.
        devices: processes on a node.
        nodes: number of nodes.
        sharding: options of `fsdp` and `hsdp`.
        find_unused: let DDP search for parameters that a step does not use, which costs a walk over
            the graph every step; for tasks that cannot touch all of them.
        timeout: after which a rank that waits for the others gives up.

    Raises:
        ValueError: if an option would be ignored, or `hsdp` has nothing to replicate.
    """
    if name not in ("auto", "ddp", "fsdp", "hsdp"):
        raise ValueError(
            f"there is no strategy {name!r}. Choose one of auto, ddp, fsdp (shards) and hsdp "
            "(copies of shards)."
        )
    world = devices * nodes
    sharded = name in ("fsdp", "hsdp")
    if sharding is not None and not sharded:
        raise ValueError(f"{name} shards nothing, so sharding options would be ignored.")
    if find_unused and (sharded or (name == "auto" and world == 1)):
        raise ValueError(f"find_unused is an option of ddp; {name} would ignore it.")
    if name == "auto" and world == 1:
        return "auto"
    if not sharded:
        return ReplicatedStrategy(
            find_unused_parameters=find_unused, gradient_as_bucket_view=True, timeout=timeout
        )
    sharding = sharding or Sharding()
    return ShardedStrategy(
        replicate=_replicas(name, sharding.replicate, world, nodes),
        gather_dtype=sharding.gather_dtype,
        offload=sharding.offload,
        sharded_checkpoints=sharding.sharded_checkpoints,
        background=sharding.background,
        reduce_every_micro_batch=sharding.reduce_every_micro_batch,
        hollow=sharding.hollow,
        timeout=timeout,
    )


def _replicas(name: str, asked: int | None, world: int, nodes: int) -> int:
    if name == "fsdp":
        if asked not in (None, 1):
            raise ValueError(
                f"fsdp has one copy, so replicate: {asked} would be ignored: use hsdp."
            )
        return 1
    replicas = nodes if asked is None else asked
    if replicas < 2 or world % replicas:
        raise ValueError(
            f"hsdp needs at least two copies that share {world} processes equally, not {replicas}. "
            "Set hardware.replicate, or use fsdp."
        )
    return replicas
