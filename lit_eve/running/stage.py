"""One stage: one `Trainer.fit`, from the previous stage's weights to this one's."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

from lightning import Trainer, seed_everything

from lit_eve import assemble
from lit_eve.checkpoints import consolidate, newest, read_weights
from lit_eve.evaluation.examine import Examiner, held_out, scores
from lit_eve.models.vision_language import VisionLanguageModel
from lit_eve.running.feed import Feed, make_feed
from lit_eve.running.progress import progress_line
from lit_eve.running.setting import Setting
from lit_eve.running.trainer import launch, make_callbacks, make_trainer, peak_memory
from lit_eve.strategies import builds_on_meta, compile_blocks, usable_weights
from lit_eve.tracking.logger import SpoolLogger
from lit_eve.tracking.spool import environment_rank
from lit_eve_callbacks.stop_on_signal import StopOnSignal, Stopped
from lit_eve_data.assembling import Share
from lit_eve_data.reading import RecordView


class RunInterrupted(RuntimeError):  # noqa: N818  # nothing went wrong
    """A signal ended the run in good order; everything up to the last step is saved."""

    def __init__(self, name: str) -> None:
        super().__init__(f"stopped by {name}")
        self.name = name


def build_model(setting: Setting, name: str) -> VisionLanguageModel:
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


def load_weights(model: VisionLanguageModel, file: Path) -> None:
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
    task = assemble.task(experiment, stage, model, feed.steps)
    stopping = StopOnSignal()
    callbacks = make_callbacks(setting, name, feed.steps, logger, stopping)
    trainer = make_trainer(setting, name, feed.steps, callbacks, logger)
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


def finish_stage(
    setting: Setting,
    name: str,
    feed: Feed,
    trainer: Trainer,
    model: VisionLanguageModel,
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
    setting: Setting, name: str, model: VisionLanguageModel, questions: int | None = None
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
