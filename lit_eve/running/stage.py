"""One stage: one `Trainer.fit`, from the previous stage's weights to this one's."""

from __future__ import annotations

import contextlib
import time
from functools import partial
from typing import Any

from lightning import Trainer, seed_everything
from torch import nn

from lit_eve.checkpoints import newest, read_weights, write_weights
from lit_eve.planning.plan import StagePlan
from lit_eve.running.going_on import newest_for_all
from lit_eve.running.kinds import Feed, Kind
from lit_eve.running.lineage import record_stage
from lit_eve.running.mixture import MixtureShares
from lit_eve.running.show_batch import ShowBatch
from lit_eve.running.trainer import launch, make_callbacks, make_trainer, peak_memory
from lit_eve.running.weights import load_weights
from lit_eve.strategies import ShardedStrategy, builds_on_meta, usable_weights
from lit_eve.tracking.logger import SpoolLogger
from lit_eve.tracking.searches import end_of
from lit_eve.tracking.spool import environment_rank
from lit_eve_callbacks.stop_on_signal import StopOnSignal, Stopped
from lit_eve_data.loading.working import Share


class RunInterrupted(RuntimeError):  # noqa: N818  # nothing went wrong
    """A signal ended the run in good order; everything up to the last step is saved."""

    def __init__(self, name: str) -> None:
        super().__init__(f"stopped by {name}")
        self.name = name


def build_model(kind: Kind[Any, Any], name: str) -> nn.Module:
    """The model as the stage `name` starts with it: made from the seed, then handed over.

    Raises:
        ValueError: if the weights of the previous stage are not this model's.
    """
    experiment = kind.experiment
    seed_everything(experiment.seed, verbose=False)
    if builds_on_meta(experiment.hardware.strategy):  # rank zero hands the weights out
        model: nn.Module = kind.shape()
    else:
        before = experiment.source_of(name)
        model = kind.model(weights=before is None)
        if before is not None:
            file = kind.directory.weights(before)
            load_weights(model, read_weights(file), file)
            count = len(model.state_dict())
            kind.console.print(f"  weights: all {count} tensors from stage {before}")
    kind.adapt(model)
    return model


def train_stage(kind: Kind[Any, Any], plan: StagePlan) -> dict[str, Any]:
    """Train one stage, or go on with it, and examine its result.

    Args:
        kind: the run.
        plan: of the stage.

    Returns:
        Its summary, as written to `summary.json`.

    Raises:
        RunInterrupted: if a signal ended it; a checkpoint of the last step is there.
    """
    directory, name = kind.directory, plan.name
    started = time.time()
    model = build_model(kind, name)
    spread = launch(kind.experiment.hardware)
    world = spread.world_size
    feed = kind.feed(name, Share(environment_rank(), world, kind.micro_batches(name, world)))
    logger = SpoolLogger(directory.stage(name))
    record_stage(kind, name, logger.spool)
    task = kind.task(name, model, feed.steps)
    stopping = StopOnSignal()
    own = kind.callbacks(name, model, feed.steps, logger)
    own += [ShowBatch(partial(kind.drawn, name), logger), MixtureShares(feed.loader)]
    callbacks = make_callbacks(kind, plan, feed, stopping, own)
    trainer = make_trainer(kind, name, feed, callbacks, logger)
    checkpoint = newest_for_all(directory.checkpoints(name), spread, kind.console.print)
    if checkpoint is not None:
        kind.console.print(f"  resuming from {checkpoint.name}")
    with contextlib.suppress(Stopped):
        trainer.fit(task, feed.loader, feed.validation, ckpt_path=checkpoint, weights_only=True)
    if stopping.signal is not None:
        logger.spool.status(*end_of(directory.path))  # a pruned trial is no failure
        raise RunInterrupted(stopping.signal.name)
    summary = finish_stage(kind, name, feed, trainer, model, logger)
    summary |= {"seconds": round(time.time() - started, 1), "memory_peak_gib": peak_memory()}
    if trainer.is_global_zero:
        directory.write_json(f"{name}/summary.json", summary)
    trainer.strategy.barrier()
    return summary


def finish_stage(
    kind: Kind[Any, Any],
    name: str,
    feed: Feed,
    trainer: Trainer,
    model: nn.Module,
    logger: SpoolLogger,
) -> dict[str, Any]:
    """Write the final weights, examine them on unseen data, sum up."""
    directory = kind.directory
    summary: dict[str, Any] = {
        "state": "finished",
        "steps": feed.steps,
        **feed.facts,
        "failed": dict(feed.loader.failures),
        "shares": {name: round(given, 4) for name, (given, _) in feed.loader.shares.items()},
        "val/loss": round(float(trainer.callback_metrics.get("val/loss", float("nan"))), 4),
    }
    if trainer.is_global_zero:
        last = newest(directory.checkpoints(name), report=kind.console.print)
        assert last is not None  # the callback saves the last step or fit raises
        write_weights(directory.weights(name), kind.final_weights(last))
    trainer.strategy.barrier()
    if not isinstance(trainer.strategy, ShardedStrategy):
        trainer.lightning_module.to(trainer.strategy.root_device)  # Lightning took it to the host
    kind.settle(name, model)
    with usable_weights(trainer.lightning_module):
        result = kind.examine(name, model)  # on every rank: a sharded model needs them all
    if trainer.is_global_zero:
        summary["scores"] = {key: round(value, 4) for key, value in result.items()}
        logger.log_metrics({f"test/{key}": value for key, value in result.items()}, feed.steps)
        kind.leave(name, model)
        logger.spool.status("FINISHED")
    return summary
