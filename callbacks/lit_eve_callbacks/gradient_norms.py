"""How strongly each part of a model is pulled."""

from __future__ import annotations

from collections.abc import Iterable

from lightning.pytorch import Callback, LightningModule, Trainer
from torch.optim import Optimizer

from lit_eve_callbacks.non_finite import gradient_norm
from lit_eve_callbacks.parts import holds


class GradientNorms(Callback):
    """Reports the 2-norm of the gradient before clipping, whole and per part, as `optim/...`.

    Args:
        parts: names in `pl_module.model`; a part that is frozen has no gradient and no report.
        every: optimizer steps between reports; in between nothing is computed.

    Raises:
        ValueError: if `every` is not positive.
    """

    def __init__(self, parts: Iterable[str], every: int = 10) -> None:
        if every < 1:
            raise ValueError(f"a report every {every} steps is not possible: give 1 or more.")
        self.parts, self.every = tuple(parts), every

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Gradients of the step are complete and averaged over the ranks here."""
        step = trainer.global_step + 1
        if step % self.every:
            return
        named = list(pl_module.model.named_parameters())  # type: ignore[union-attr]
        norms = {"optim/gradient_norm": gradient_norm(parameter for _, parameter in named)}
        for part in self.parts:
            label = part.replace("*.", "")  # trackers take no stars
            norms[f"optim/gradient_norm/{label}"] = gradient_norm(
                parameter for name, parameter in named if holds(part, name)
            )
        found = {name: float(norm) for name, norm in norms.items() if norm is not None}
        for logger in trainer.loggers:
            logger.log_metrics(found, step=step)
