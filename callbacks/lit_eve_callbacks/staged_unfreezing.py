"""Parts of a model that start to learn at their own step.

Whether a parameter trains is a pure function of the step and its name: nothing is saved, so nothing
can be forgotten on resume. Every parameter is in the optimizer from the start; AdamW neither moves
nor keeps state for one without a gradient, and schedules and checkpoints always see the same
groups. (`BaseFinetuning` of Lightning adds groups as it goes: it compares parameters by value,
forgets `requires_grad` on resume, and breaks `LambdaLR`.)
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from lit_eve_callbacks.parts import missing_part, most_specific

log = logging.getLogger(__name__)


def thaw_step(name: str, parts: Mapping[str, int]) -> int | None:
    """From which step the parameter `name` trains.

    Args:
        name: a parameter's name in the model.
        parts: thaw steps by part, see `lit_eve_callbacks.parts`.

    Returns:
        The step of the most specific part that holds it, or None: it is frozen for good.
    """
    part = most_specific(name, parts)
    return None if part is None else parts[part]


def trains(name: str, parts: Mapping[str, int], step: int) -> bool:
    """Whether the parameter `name` learns at `step`."""
    thaw = thaw_step(name, parts)
    return thaw is not None and step >= thaw


def check_parts(names: Iterable[str], parts: Mapping[str, int]) -> None:
    """Stop before training if a part names nothing, or a step is impossible.

    Raises:
        ValueError: naming the part, and the nearest names that exist.
    """
    for part, step in parts.items():
        if step < 0:
            raise ValueError(f"part {part!r} cannot thaw at step {step}: steps count from 0.")
    missing = missing_part(names, parts)
    if missing is not None:
        raise ValueError(
            f"part {missing[0]!r} is not in the model, so nothing would learn under that name. "
            f"Nearest: {', '.join(missing[1])}."
        )
    if min(parts.values(), default=1) > 0:
        raise ValueError(
            "no part of the model trains from step 0, so the first steps would learn nothing. Let "
            "at least one part under `train:` thaw at 0."
        )


class StagedUnfreezing(Callback):
    """Makes `requires_grad` follow the step.

    After a change it tells the strategy (`on_requires_grad_changed`), if that can be told: DDP
    never synchronises what was frozen when it wrapped the model, FSDP2 derives its dtypes once.

    Args:
        parts: thaw step by part of `pl_module.model`; 0 trains from the start. What no part holds
            is frozen.
    """

    def __init__(self, parts: Mapping[str, int]) -> None:
        self.parts = dict(parts)
        self._steps = sorted(set(self.parts.values()))
        self._resumed_step = 0

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """DDP looks at `requires_grad` when it wraps: set it for the resumed step before that."""
        self._resumed_step = int(checkpoint["global_step"])
        self._apply(trainer, pl_module, self._resumed_step, tell=False)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Freeze before any wrapper sees the model, where the model exists already."""
        if stage == "fit" and isinstance(getattr(pl_module, "model", None), nn.Module):
            check_parts((name for name, _ in _model(pl_module).named_parameters()), self.parts)
            self._apply(trainer, pl_module, 0, tell=False)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the parts; a sharded model exists only now."""
        check_parts((name for name, _ in _model(pl_module).named_parameters()), self.parts)
        self._apply(trainer, pl_module, self._resumed_step)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say what trains."""
        self._apply(trainer, pl_module, trainer.global_step)
        self._report(trainer, pl_module)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Thaw at the first batch of the step: the count moves with the optimizer."""
        step = trainer.global_step
        if step in self._steps and self._apply(trainer, pl_module, step):
            self._report(trainer, pl_module)

    def _apply(
        self, trainer: Trainer, pl_module: LightningModule, step: int, tell: bool = True
    ) -> bool:
        changed = False
        for name, parameter in _model(pl_module).named_parameters():
            wanted = trains(name, self.parts, step)
            if parameter.requires_grad != wanted:
                parameter.requires_grad_(wanted)
                changed = True
        refresh = getattr(trainer.strategy, "on_requires_grad_changed", None)
        if changed and tell and refresh is not None:
            refresh()
        return changed

    def _report(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        sizes = [
            (parameter.numel(), parameter.requires_grad)
            for parameter in _model(pl_module).parameters()
        ]
        training = sum(size for size, trained in sizes if trained)
        now = [part for part, step in self.parts.items() if step <= trainer.global_step]
        later = [f"{part} at {step}" for part, step in self.parts.items() if part not in now]
        log.info(
            "step %d: training %s (%s of %s parameters)%s",
            trainer.global_step,
            ", ".join(now) or "nothing",
            f"{training:,}",
            f"{sum(size for size, _ in sizes):,}",
            f"; thawing {', '.join(later)}" if later else "",
        )


def _model(pl_module: LightningModule) -> nn.Module:
    model = pl_module.model
    if not isinstance(model, nn.Module):
        raise TypeError(f"{type(pl_module).__name__}.model is no module: there is nothing to thaw.")
    return model
