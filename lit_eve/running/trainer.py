"""Lightning's Trainer, as a stage of an experiment needs it."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Sequence
from typing import Any

import torch
from lightning import Callback, Trainer
from lightning.pytorch.strategies import Strategy

from lit_eve.checkpoints import AtomicCheckpointIO, Checkpoints
from lit_eve.planning.plan import StagePlan
from lit_eve.running.kinds import Feed, Kind
from lit_eve.running.progress import StageProgress
from lit_eve.schema import Experiment
from lit_eve.schema.running import Hardware
from lit_eve.strategies import Launch, Sharding, build_strategy, detect_launch
from lit_eve.strategies.machine import check_machine
from lit_eve.tracking.logger import SpoolLogger
from lit_eve_callbacks.gradient_norms import GradientNorms
from lit_eve_callbacks.micro_batches import MicroBatches
from lit_eve_callbacks.non_finite import NonFiniteGuard
from lit_eve_callbacks.profile_steps import ProfileSteps
from lit_eve_callbacks.random_state import RandomState
from lit_eve_callbacks.staged_unfreezing import StagedUnfreezing
from lit_eve_callbacks.step_metrics import StepMetrics
from lit_eve_callbacks.step_watch import StepWatch
from lit_eve_callbacks.stop_on_signal import StopOnSignal
from lit_eve_callbacks.stuck_rank import StuckRank

STUCK_SECONDS = 3600.0
"""A rank that ends no batch for so long is given up: more than any saving or validation takes."""
PRECISIONS = {"float32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


def make_callbacks(
    kind: Kind[Any, Any],
    plan: StagePlan,
    feed: Feed,
    stopping: StopOnSignal,
    own: Sequence[Callback],
) -> list[Callback]:
    """What steers and watches a stage; the order is that of their hooks."""
    experiment, directory, name = kind.experiment, kind.directory, plan.name
    stage, checkpoint = experiment.trained[name], experiment.checkpoint
    traced = [] if experiment.profile is None else [experiment.profile.steps]
    return [
        MicroBatches(feed.micro_batches),
        StagedUnfreezing({part: options.thaw for part, options in stage.train.items()}),
        stopping,
        StepMetrics(every=10),
        StepWatch(every=10, flops=plan.batch_flops),
        GradientNorms(stage.train, every=10),
        NonFiniteGuard(directory.stage(name)),
        *([StuckRank(STUCK_SECONDS)] if launch(experiment.hardware).world_size > 1 else []),
        *(ProfileSteps(first, last, directory.stage(name)) for first, last in traced),
        StageProgress(kind.console, name, feed.steps),
        Checkpoints(
            directory.checkpoints(name),
            checkpoint.every,
            checkpoint.keep,
            best=None if checkpoint.best is None else checkpoint.best.metric,
            mode="min" if checkpoint.best is None else checkpoint.best.mode,
        ),
        *own,
        RandomState(),
    ]


def make_trainer(
    kind: Kind[Any, Any], name: str, feed: Feed, callbacks: list[Callback], logger: SpoolLogger
) -> Trainer:
    """Lightning's Trainer for a stage."""
    experiment, stage = kind.experiment, kind.experiment.trained[name]
    spread = launch(experiment.hardware)
    return Trainer(
        accelerator=experiment.hardware.accelerator,
        devices=spread.devices,
        num_nodes=spread.nodes,
        strategy=make_strategy(experiment.hardware, spread),
        precision=PRECISIONS[stage.precision],  # type: ignore[arg-type]
        max_steps=feed.steps,
        max_epochs=-1,
        accumulate_grad_batches=feed.micro_batches,
        gradient_clip_val=stage.optimizer.clip,
        # once at least; Lightning counts micro-batches
        val_check_interval=min(experiment.evaluate.every, feed.steps) * feed.micro_batches,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        callbacks=callbacks,
        plugins=[AtomicCheckpointIO()],
        logger=logger,
        log_every_n_steps=10,
        use_distributed_sampler=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=True,
        default_root_dir=kind.directory.stage(name),
    )


def launch(hardware: Hardware) -> Launch:
    """How many processes work on a run, and who starts them."""
    gpus = torch.cuda.device_count() if hardware.accelerator in ("auto", "gpu") else 0
    return detect_launch(hardware.devices, hardware.nodes, available=max(1, gpus))


def check_hardware(experiment: Experiment) -> None:
    """Say before work starts what this machine cannot do.

    Raises:
        ValueError: naming everything that does not fit, and the file's key to change.
    """
    hardware = experiment.hardware
    spread = launch(hardware)
    if spread.by == "lightning" and spread.nodes > 1:
        raise ValueError(
            f"hardware.nodes is {spread.nodes}, but nobody has started the other machines, and "
            "each would open a run of its own. Start with torchrun or SLURM: lit-eve submit."
        )
    for stage in experiment.trained.values():
        precision = PRECISIONS[stage.precision]
        check_machine(
            hardware.accelerator,
            hardware.strategy,
            spread,
            precision,
            offload=hardware.offload,
            machine=hardware.machine,
        )
    make_strategy(hardware, spread)


def make_strategy(hardware: Hardware, spread: Launch, hollow: bool = False) -> Strategy | str:
    """Lightning's strategy for the file's words; hollow: shards of zeros, to be measured."""
    sharding = None
    if hardware.strategy in ("fsdp", "hsdp"):
        # Else a whole set of gradients would be kept while others are added to it.
        sharding = Sharding(
            replicate=hardware.replicate,
            offload=hardware.offload,
            reduce_every_micro_batch=True,
            hollow=hollow,
        )
    return build_strategy(hardware.strategy, spread.devices, spread.nodes, sharding=sharding)


def limit_threads(hardware: Hardware) -> None:
    """Use the cores there are and no more: oversubscription makes a step ten times slower."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    processes = launch(hardware).devices
    chosen = hardware.threads if hardware.threads != "auto" else (cores or 1) // processes
    torch.set_num_threads(max(1, chosen))


def peak_memory() -> float:
    """GiB that the device, or without one this process, has used at most."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
