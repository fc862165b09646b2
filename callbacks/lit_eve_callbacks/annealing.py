"""Numbers inside a model that change while it learns: temperatures, weights of a loss."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor


class Annealing(Callback):
    """Sets every scalar buffer of a name to a function of the optimizer step.

    The number at a step does not depend on how the step was reached, so a resumed run needs no
    counter. It is logged as `optim/<name>` every `every` steps.

    Args:
        name: last part of the buffers' names, `temperature` or `kl_weight`.
        value: the number at a step, e.g. from `schedules.schedule`.
        every: optimizer steps per report.

    Raises:
        ValueError: when a fit starts, if the model has no such buffer.
    """

    def __init__(self, name: str, value: Callable[[int], float], every: int = 10) -> None:
        self.name, self.value, self.every = name, value, every
        self._buffers: list[Tensor] = []

    @property
    def state_key(self) -> str:
        """One for each name, since a model may have several."""
        return f"{type(self).__name__}({self.name})"

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the buffers."""
        self._buffers = scalar_buffers(pl_module, self.name)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """The number of this step."""
        step = trainer.global_step
        value = self._set(step)
        if step % self.every == 0:
            for logger in trainer.loggers:
                logger.log_metrics({f"optim/{self.name}": value}, step=step)

    def _set(self, step: int) -> float:
        value = self.value(step)
        for buffer in self._buffers:
            buffer.fill_(value)
        return value


def scalar_buffers(module: LightningModule, name: str) -> list[Tensor]:
    """All buffers without axes whose name ends in `name`.

    Raises:
        ValueError: if there is none, naming the ones there are.
    """
    scalars = {path: b for path, b in module.named_buffers() if b.ndim == 0}
    found = [buffer for path, buffer in scalars.items() if path.rpartition(".")[2] == name]
    if not found:
        names = {path.rpartition(".")[2] for path, b in scalars.items() if b.is_floating_point()}
        there = sorted(names)
        near = get_close_matches(name, there, n=1) or there
        raise ValueError(
            f"the model has no scalar buffer called {name!r}, so there is nothing to anneal. "
            f"It has {', '.join(near) or 'none at all'}: anneal that, or take the schedule out."
        )
    return found
