"""The data of one stage: its plan, its batches, its held-out batches."""

from __future__ import annotations

import os
from dataclasses import dataclass
from math import ceil

import torch

from lit_eve import assemble
from lit_eve.running.progress import progress_line
from lit_eve.running.setting import Setting
from lit_eve.schema.running import Hardware
from lit_eve.schema.training import LanguageStage
from lit_eve.schema.units import Budget
from lit_eve_data.assembling import Share
from lit_eve_data.loader import PackedLoader
from lit_eve_data.packing import PackingPlan
from lit_eve_data.passes import PackedPass

HELD_OUT_SAMPLES = 1_024
"""Most held-out samples whose loss is computed at a validation."""


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
