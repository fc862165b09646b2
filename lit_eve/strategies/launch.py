"""Who started the processes, and how many there are."""

from __future__ import annotations

import atexit
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch


@dataclass(frozen=True)
class Launch:
    """How a run is spread."""

    devices: int
    """Processes on this node."""
    nodes: int
    by: Literal["lightning", "torchrun", "slurm"]

    @property
    def world_size(self) -> int:
        """All processes."""
        return self.devices * self.nodes


def detect_launch(
    devices: int | Literal["auto"],
    nodes: int = 1,
    available: int = 1,
    environment: Mapping[str, str] | None = None,
) -> Launch:
    """Reconcile what was asked for with who started this process.

    Args:
        devices: per node, as the experiment file has it.
        nodes: as the experiment file has it.
        available: what `auto` means where nobody else says.
        environment: variables of the launcher; this process's own by default.

    Raises:
        ValueError: if the two disagree, or the launcher has started too few processes.
    """
    env = os.environ if environment is None else environment
    if "TORCHELASTIC_RUN_ID" in env:
        local, world = int(env["LOCAL_WORLD_SIZE"]), int(env["WORLD_SIZE"])
        return _agreed(Launch(local, world // local, "torchrun"), devices, nodes)
    tasks = int(env.get("SLURM_NTASKS", "1"))
    if tasks > 1 and env.get("SLURM_JOB_NAME") not in ("bash", "interactive"):
        if "SLURM_STEP_ID" not in env:
            raise ValueError(
                f"this SLURM job has {tasks} tasks but this is only one process: the others would "
                "be waited for in vain. Start it with `srun lit-eve run ...`."
            )
        per_node = int(env.get("SLURM_NTASKS_PER_NODE", str(tasks)).split("(")[0])
        return _agreed(Launch(per_node, tasks // per_node, "slurm"), devices, nodes)
    return Launch(available if devices == "auto" else devices, nodes, "lightning")


def shut_down() -> None:
    """Leave the process group; Lightning does so for NCCL only, and gloo may abort at exit."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


atexit.register(shut_down)


def _agreed(found: Launch, devices: int | Literal["auto"], nodes: int) -> Launch:
    if devices not in ("auto", found.devices):
        raise ValueError(
            f"{found.by} has started {found.devices} processes a node, but hardware.devices is "
            f"{devices}. Start as many, or set hardware.devices to auto."
        )
    if nodes not in (1, found.nodes):
        raise ValueError(
            f"{found.by} runs on {found.nodes} nodes, but hardware.nodes is {nodes}. Start on as "
            "many, or leave hardware.nodes out."
        )
    return found
