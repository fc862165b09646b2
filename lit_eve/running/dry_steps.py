"""Training steps that are made only to see how much memory they take.

A process of its own makes them, alone: where weights are sharded it stands among ranks that do not
exist, whose answers have the right shapes and memory and no meaning. So steps that run out of
memory, or a process that the system ends for it, keep no other rank waiting and spoil nothing.
"""

from __future__ import annotations

import gc
import io
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import repeat
from math import ceil
from pathlib import Path
from typing import Any

import psutil
import torch
from lightning import Trainer
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from rich.console import Console

from lit_eve.running.directory import RunDirectory
from lit_eve.running.kinds import kind_of
from lit_eve.running.kinds.packed import Packed
from lit_eve.running.trainer import PRECISIONS, limit_threads, make_strategy
from lit_eve.schema import load
from lit_eve.strategies import Launch
from lit_eve_callbacks.staged_unfreezing import StagedUnfreezing
from lit_eve_callbacks.step_watch import memory_peak
from lit_eve_data.batches import PackedBatch

STEPS = 2
"""The first one makes the optimizer's state, the second finds it there."""
_OF_LAUNCHERS = ("TORCHELASTIC_", "SLURM_", "PMI_", "OMPI_", "MASTER_", "GROUP_", "ROLE_")
_NUMBERS = ("RANK", "LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")


@dataclass(frozen=True)
class DryRun:
    """Which stage of which run, and as which of its processes."""

    directory: str
    data: str
    stage: str
    devices: int
    nodes: int
    local_rank: int

    @property
    def spread(self) -> Launch:
        """As the run itself is spread."""
        return Launch(self.devices, self.nodes, "torchrun")

    def to_json(self) -> str:
        """For the command line."""
        return json.dumps(asdict(self))


@dataclass(frozen=True)
class Again:
    """One batch, so many times."""

    batch: PackedBatch
    times: int

    def __len__(self) -> int:
        return self.times

    def __iter__(self) -> Iterator[PackedBatch]:
        return repeat(self.batch, self.times)


def environment(run: DryRun, given: Mapping[str, str]) -> dict[str, str]:
    """Variables of a process that makes dry steps: rank zero, which has the largest shards.

    Args:
        run: what it stands for.
        given: this process's own; what a launcher says in them is left out.
    """
    kept = {
        name: value
        for name, value in given.items()
        if not name.startswith(_OF_LAUNCHERS) and name not in _NUMBERS
    }
    return kept | {
        "TORCHELASTIC_RUN_ID": "dry",
        "RANK": "0",
        "GROUP_RANK": "0",
        "LOCAL_RANK": str(run.local_rank),
        "WORLD_SIZE": str(run.spread.world_size),
        "LOCAL_WORLD_SIZE": str(run.devices),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "1",
    }


def serve(
    run: DryRun, requests: Iterable[str], answer: Callable[[Mapping[str, int | None]], None]
) -> None:
    """Say how much memory there is, then for every number of rows what training on them takes.

    Args:
        run: what is measured.
        requests: a number of rows each.
        answer: told `limit` once and `peak` for every request, in bytes; None if it ran out.
    """
    from lit_eve.running.run import quiet  # which in the end starts this process

    quiet()
    directory = RunDirectory(Path(run.directory))
    experiment = load(directory.experiment_file)
    limit_threads(experiment.hardware)
    kind = kind_of(experiment).prepare(
        experiment, directory, Path(run.data), Console(file=io.StringIO())
    )
    assert isinstance(kind, Packed)  # the file was checked
    device = _device(experiment.hardware.accelerator, run.local_rank)
    answer({"limit": free_memory(device, run.devices)})
    if experiment.hardware.strategy in ("fsdp", "hsdp"):
        _stand_alone(run.spread.world_size)
    for request in requests:
        answer({"peak": _peak(kind, run, int(request), device)})


def free_memory(device: torch.device, processes: int) -> int:
    """Bytes that a training may take on a device, without one in a process of this machine."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = psutil.virtual_memory().available
    group = Path("/sys/fs/cgroup")
    try:
        used = int((group / "memory.current").read_text())
        words = (group / "memory.stat").read_text().split()
        cached = int(words[words.index("inactive_file") + 1])
        free = min(free, int((group / "memory.max").read_text()) - used + cached)
    except (OSError, ValueError):
        pass  # nothing limits this group
    return max(0, free) // processes + psutil.Process().memory_info().rss


def _peak(kind: Packed[Any, Any], run: DryRun, rows: int, device: torch.device) -> int | None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    try:
        _train(kind, run, rows, device)
    except Exception as error:
        if not _ran_out(error):
            raise
        return None
    finally:
        gc.collect()  # the failed step's tensors
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return memory_peak(device)


def _train(kind: Packed[Any, Any], run: DryRun, rows: int, device: torch.device) -> None:
    """Steps as the stage makes them, with everything trained that it ever trains."""
    stage, hardware = kind.stage(run.stage), kind.experiment.hardware
    sharded = hardware.strategy in ("fsdp", "hsdp")
    rounds = ceil(kind.packing(run.stage).rows_per_step / (run.spread.world_size * rows))
    copies = not sharded and run.spread.world_size > 1  # DDP's buckets always hold gradients
    model = kind.shape() if sharded else kind.model(weights=False)
    kind.adapt(model)
    micro_batches = 2 if copies else min(2, rounds)
    on_device = [run.local_rank] if device.type == "cuda" else 1
    trainer = Trainer(
        accelerator="gpu" if device.type == "cuda" else "cpu",
        devices=run.devices if sharded else on_device,
        num_nodes=run.nodes if sharded else 1,
        strategy=make_strategy(hardware, run.spread, hollow=True) if sharded else "auto",
        plugins=[] if sharded else [LightningEnvironment()],
        precision=PRECISIONS[stage.precision],  # type: ignore[arg-type]
        max_steps=STEPS,
        accumulate_grad_batches=micro_batches,
        gradient_clip_val=stage.optimizer.clip,
        callbacks=[StagedUnfreezing(dict.fromkeys(stage.train, 0))],
        logger=False,
        use_distributed_sampler=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    batch = kind.heaviest(run.stage, rows)
    trainer.fit(kind.task(run.stage, model, STEPS), Again(batch, STEPS * micro_batches))


def _stand_alone(world: int) -> None:
    """A process group whose other ranks do not exist."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    torch.distributed.init_process_group("fake", rank=0, world_size=world, store=FakeStore())


def _device(accelerator: str, local_rank: int) -> torch.device:
    if accelerator != "cpu" and torch.cuda.is_available():
        return torch.device("cuda", local_rank)
    return torch.device("cpu")


def _ran_out(error: Exception) -> bool:
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def main() -> None:
    """`python -m lit_eve.running.dry_steps RUN`: numbers of rows in, lines of JSON out."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as lines:
        os.dup2(2, 1)  # what libraries print is no answer

        def answer(values: Mapping[str, int | None]) -> None:
            print(json.dumps(values), file=lines, flush=True)

        serve(DryRun(**json.loads(sys.argv[1])), sys.stdin, answer)


if __name__ == "__main__":
    main()
