"""One stage: one `Trainer.fit`, from the previous stage's weights to this one's."""

from __future__ import annotations

import contextlib
import os
import resource
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer, seed_everything
from lightning.pytorch.strategies import Strategy
from rich.console import Console

from lit_eve import assemble
from lit_eve.checkpoints import AtomicCheckpointIO, Checkpoints, consolidate, newest, read_weights
from lit_eve.examine import Examiner, ShowAnswers, held_out, scores
from lit_eve.models.encoder_free import EncoderFreeVLM
from lit_eve.progress import StageProgress, progress_line
from lit_eve.run_directory import RunDirectory
from lit_eve.schema import VisionLanguageExperiment
from lit_eve.schema.running import Hardware
from lit_eve.schema.training import LanguageStage
from lit_eve.schema.units import Budget
from lit_eve.strategies import (
    Launch,
    Sharding,
    build_strategy,
    builds_on_meta,
    compile_blocks,
    detect_launch,
    usable_weights,
)
from lit_eve.tasks.language import LanguageTask
from lit_eve.tracking.logger import SpoolLogger
from lit_eve.tracking.spool import environment_rank
from lit_eve_callbacks.random_state import RandomState
from lit_eve_callbacks.staged_unfreezing import StagedUnfreezing
from lit_eve_callbacks.step_metrics import StepMetrics
from lit_eve_callbacks.step_watch import StepWatch
from lit_eve_callbacks.stop_on_signal import StopOnSignal, Stopped
from lit_eve_data.assembling import Share
from lit_eve_data.lengths import SampleEncoder
from lit_eve_data.loader import PackedLoader
from lit_eve_data.packing import PackingPlan
from lit_eve_data.passes import PackedPass
from lit_eve_data.reading import RecordView

HELD_OUT_SAMPLES = 1_024
"""Most held-out samples whose loss is computed at a validation."""


class RunInterrupted(RuntimeError):  # noqa: N818  # nothing went wrong
    """A signal ended the run in good order; everything up to the last step is saved."""

    def __init__(self, name: str) -> None:
        super().__init__(f"stopped by {name}")
        self.name = name


@dataclass(frozen=True)
class Setting:
    """What all stages of a run share."""

    experiment: VisionLanguageExperiment
    directory: RunDirectory
    datasets: Mapping[str, Path]
    encoder: SampleEncoder
    console: Console


@dataclass(frozen=True)
class Feed:
    """The data of one stage."""

    plan: PackingPlan
    loader: PackedLoader
    validation: PackedPass
    steps: int


def num_steps(budget: Budget, plan: PackingPlan) -> int:
    """Optimizer steps that a stage's `for:` amounts to."""
    per_step = {
        "steps": 1.0,
        "samples": plan.samples_per_step,
        "tokens": float(plan.tokens_per_step),
        "epochs": plan.samples_per_step / plan.samples_per_epoch,
    }[budget.unit]
    return max(1, ceil(budget.amount / per_step))


def make_plan(setting: Setting, stage: LanguageStage) -> PackingPlan:
    """Which samples come when, a pure function of the data and the file."""
    sources = []
    for name, weight in stage.data.items():
        view = assemble.view(setting.datasets, name, "train")
        with progress_line(setting.console, f"measuring {name}", "samples") as bar:
            sources.append(setting.encoder.lengths(name, view, weight, bar))
    return PackingPlan(sources, stage.tokens_per_row, stage.batch, setting.experiment.seed)


def make_feed(setting: Setting, stage: LanguageStage, share: Share) -> Feed:
    """Loaders of a stage for this process."""
    plan = make_plan(setting, stage)
    views = [assemble.view(setting.datasets, name, "train") for name in stage.data]
    steps = num_steps(stage.budget, plan)
    workers = num_workers(setting.experiment.hardware)
    loader = PackedLoader(plan, views, setting.encoder, steps, share, workers)
    name = next(iter(stage.data))
    held = assemble.view(setting.datasets, name, "val")
    validation = PackedPass(
        held,
        setting.encoder.lengths(name, held, 1.0),
        setting.encoder,
        stage.tokens_per_row,
        rows_per_batch=plan.rows_per_step,
        limit=HELD_OUT_SAMPLES,
        share=Share(share.rank, share.world),
    )
    return Feed(plan, loader, validation, steps)


def num_workers(hardware: Hardware) -> int:
    """Processes that read data: none on a CPU, where they would take the training's cores."""
    if hardware.workers != "auto":
        return hardware.workers
    if not torch.cuda.is_available():
        return 0
    return min(8, max(1, (os.cpu_count() or 1) // max(1, torch.cuda.device_count()) - 1))


def limit_threads(hardware: Hardware) -> None:
    """Use the cores there are and no more: oversubscription makes a step ten times slower."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    chosen = hardware.threads if hardware.threads != "auto" else (cores or 1) // processes
    torch.set_num_threads(max(1, chosen))


def build_model(setting: Setting, name: str) -> EncoderFreeVLM:
    """The model as the stage `name` starts with it: made from the seed, then handed over.

    Raises:
        ValueError: if the weights of the previous stage are not this model's.
    """
    experiment = setting.experiment
    seed_everything(experiment.seed, verbose=False)
    tokens = setting.encoder.text.num_tokens
    if builds_on_meta(experiment.hardware.strategy):  # rank zero hands the weights out
        model = assemble.on_meta(experiment.model, tokens)
    else:
        model = assemble.encoder_free(experiment.model, tokens)
        before = experiment.source_of(name)
        if before is not None:
            load_weights(model, setting.directory.weights(before))
            count = len(model.state_dict())
            setting.console.print(f"  weights: all {count} tensors from stage {before}")
    if experiment.hardware.activation_checkpointing:
        model.language_model.recompute_activations()
    if experiment.hardware.compile:
        compile_blocks(model)
    return model


def load_weights(model: EncoderFreeVLM, file: Path) -> None:
    """Fill a model from a stage's weights, every tensor of it.

    Raises:
        ValueError: naming what is missing or unknown.
    """
    missing, unknown = model.load_state_dict(read_weights(file), strict=False)
    if missing or unknown:
        raise ValueError(
            f"{file} does not hold this model: missing {missing[:5]}, unknown {unknown[:5]}. "
            "The experiment file changed since the weights were written; use the run's own."
        )


PRECISIONS = {"float32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


def train_stage(setting: Setting, name: str) -> dict[str, Any]:
    """Train one stage, or go on with it, and examine its result.

    Returns:
        Its summary, as written to `summary.json`.

    Raises:
        RunInterrupted: if a signal ended it; a checkpoint of the last step is there.
    """
    experiment, directory = setting.experiment, setting.directory
    stage = experiment.stages[name]
    started = time.time()
    model = build_model(setting, name)
    spread = launch(experiment.hardware)
    feed = make_feed(setting, stage, Share(environment_rank(), spread.world_size))
    logger = SpoolLogger(directory.stage(name))
    task = LanguageTask(model, assemble.rates(stage, feed.steps), assemble.adamw(stage.optimizer))
    stopping = StopOnSignal()
    trainer = make_trainer(setting, name, feed, logger, stopping)
    checkpoint = newest(directory.checkpoints(name), report=setting.console.print)
    if checkpoint is not None:
        setting.console.print(f"  resuming from {checkpoint.name}")
    with contextlib.suppress(Stopped):
        trainer.fit(task, feed.loader, feed.validation, ckpt_path=checkpoint, weights_only=True)
    if stopping.signal is not None:
        raise RunInterrupted(stopping.signal.name)
    summary = finish_stage(setting, name, feed, trainer, model, logger)
    summary |= {"seconds": round(time.time() - started, 1), "memory_peak_gib": peak_memory()}
    if trainer.is_global_zero:
        directory.write_json(f"{name}/summary.json", summary)
    trainer.strategy.barrier()
    return summary


def peak_memory() -> float:
    """GiB that the device, or without one this process, has used at most."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def launch(hardware: Hardware) -> Launch:
    """How many processes work on a run, and who starts them."""
    gpus = torch.cuda.device_count() if hardware.accelerator in ("auto", "gpu") else 0
    return detect_launch(hardware.devices, hardware.nodes, available=max(1, gpus))


def make_strategy(hardware: Hardware, spread: Launch) -> Strategy | str:
    """Lightning's strategy for the file's words."""
    sharding = None
    if hardware.strategy in ("fsdp", "hsdp"):
        sharding = Sharding(replicate=hardware.replicate, offload=hardware.offload)
    return build_strategy(hardware.strategy, spread.devices, spread.nodes, sharding=sharding)


def make_trainer(
    setting: Setting, name: str, feed: Feed, logger: SpoolLogger, stopping: StopOnSignal
) -> Trainer:
    """Lightning's Trainer with everything a stage needs around it."""
    experiment, directory = setting.experiment, setting.directory
    stage, evaluate = experiment.stages[name], experiment.evaluate
    spread = launch(experiment.hardware)
    best = experiment.checkpoint.best
    view = assemble.view(setting.datasets, next(iter(stage.data)), "val")
    shown = [view[n] for n in range(min(evaluate.answers, len(view)))]
    callbacks = [
        StagedUnfreezing({part: options.thaw for part, options in stage.train.items()}),
        stopping,
        StepMetrics(every=10),
        StepWatch(every=10),
        StageProgress(setting.console, name, feed.steps),
        Checkpoints(
            directory.checkpoints(name),
            experiment.checkpoint.every,
            experiment.checkpoint.keep,
            best=None if best is None else best.metric,
            mode="min" if best is None else best.mode,
        ),
        ShowAnswers(Examiner(setting.encoder, shown), logger),
        RandomState(),
    ]
    return Trainer(
        accelerator=experiment.hardware.accelerator,
        devices=spread.devices,
        num_nodes=spread.nodes,
        strategy=make_strategy(experiment.hardware, spread),
        precision=PRECISIONS[stage.precision],  # type: ignore[arg-type]
        max_steps=feed.steps,
        max_epochs=-1,
        gradient_clip_val=stage.optimizer.clip,
        val_check_interval=evaluate.every,
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
        default_root_dir=directory.stage(name),
    )


def finish_stage(
    setting: Setting,
    name: str,
    feed: Feed,
    trainer: Trainer,
    model: EncoderFreeVLM,
    logger: SpoolLogger,
) -> dict[str, Any]:
    """Write the final weights, examine them on unseen scans, sum up."""
    directory = setting.directory
    last = newest(directory.checkpoints(name), report=setting.console.print)
    assert last is not None  # the callback saves the last step or fit raises
    summary: dict[str, Any] = {
        "state": "finished",
        "steps": feed.steps,
        "samples": round(feed.steps * feed.plan.samples_per_step),
        "tokens": feed.steps * feed.plan.tokens_per_step,
        "padding": round(feed.plan.padding, 4),
        "over_long": feed.plan.over_long,
        "failed": dict(feed.loader.failures),
        "val/loss": round(float(trainer.callback_metrics.get("val/loss", float("nan"))), 4),
    }
    if trainer.is_global_zero:
        consolidate(last, directory.weights(name), prefix="model.")
    with usable_weights(trainer.lightning_module):
        result = examine(setting, name, model)  # on every rank: a sharded model needs them all
    if trainer.is_global_zero:
        summary["scores"] = {key: round(value, 4) for key, value in result.items()}
        logger.log_metrics({f"test/{key}": value for key, value in result.items()}, feed.steps)
        logger.spool.status("FINISHED")
    return summary


def examine(
    setting: Setting, name: str, model: EncoderFreeVLM, questions: int | None = None
) -> dict[str, float]:
    """Scores on questions about scans that no training has seen."""
    experiment = setting.experiment
    samples = []
    for data in experiment.stages[name].data:
        view = assemble.view(setting.datasets, data, "test")
        kinds = [view.store.sidecar.kinds[code] for code in _codes(view)]
        samples += held_out(view, kinds, questions or experiment.evaluate.questions)
    with progress_line(setting.console, f"{name}: held-out", "questions") as bar:
        return scores(Examiner(setting.encoder, samples).ask(model, bar))


def _codes(view: RecordView) -> list[int]:
    return sorted(set(view.store.sidecar.kind[view.indices].tolist()))
