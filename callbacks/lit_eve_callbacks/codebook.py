"""Watches a codebook learn: usage over a window, dead codes, gradients of the scores, alarms."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.utils.hooks import RemovableHandle
from torchmetrics import Metric

log = logging.getLogger(__name__)

VANISHED = 1e-7
"""A position whose score gradient is this share of the largest or less learns nothing."""

BARS = 256
"""Most bars of the histogram."""


class CodebookWatch(Callback):
    """Reports on the codes of a window of training steps, over all processes.

    Reads what `training_step` returned: the codes of a batch under `codes`, by level, and
    statistics named `codebook/...`, which are averaged (`codebook/replaced_codes` is summed). Logs,
    every `every` optimizer steps: all values of each level's counter as `codebook/<level>/<name>`
    (the level `all` without its name), the statistics, a picture of the code histogram for loggers
    that take pictures, and 0 or 1 as `codebook/collapsed` and `codebook/scores_vanish`. A change to
    1 is also a warning.

    Args:
        counters: by level, fresh metrics of codes whose `counts` are per code and whose `compute`
            gives at least `usage_of_ceiling`.
        every: optimizer steps of a window.
        collapsed_below: usage as a share of its ceiling that counts as a collapse.
        scores: path of the module that the scores of all codes go into, for quantizers whose
            gradient comes through a softmax; None leaves that out.
        vanished_above: share of positions without gradient that is an alarm: at a temperature of
            1/16 it was seen to be 0.45, at 1/64 0.77.

    Raises:
        ValueError: if there is nothing to watch.
    """

    def __init__(
        self,
        counters: Mapping[str, Metric],
        every: int = 100,
        collapsed_below: float = 0.1,
        scores: str | None = None,
        vanished_above: float = 0.6,
    ) -> None:
        if not counters:
            raise ValueError(
                "this tokenizer has no codes, so there is no codebook to watch: take the watch "
                "out, or use a discrete quantizer."
            )
        if every < 1:
            raise ValueError(f"a window of {every} steps is not possible: give 1 or more.")
        self.counters = dict(counters)
        self.every, self.collapsed_below = every, collapsed_below
        self.scores, self.vanished_above = scores, vanished_above
        self._statistics = _Means()
        self._seen_step = 0
        self._gradient: Tensor | None = None
        self._hook: RemovableHandle | None = None
        self._alarms: dict[str, bool] = {}
        self._restored: dict[str, Tensor] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Move the counters to the device, and listen to the scores."""
        self._seen_step = trainer.global_step
        for level, counter in self.counters.items():
            counter.to(pl_module.device)
            if level in self._restored and trainer.is_global_zero:  # it holds what all had counted
                counter.update(torch.empty(0, dtype=torch.int64, device=pl_module.device))
                _counts(counter).add_(self._restored[level].to(pl_module.device))
        self._restored = {}
        if self.scores is not None:
            module = pl_module.get_submodule(self.scores)
            self._hook = module.register_forward_pre_hook(
                lambda _, inputs: self._listen(inputs[0], trainer.global_step)
            )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop listening."""
        if self._hook is not None:
            self._hook.remove()

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count a micro-batch; report at the end of a window."""
        for level, codes in outputs["codes"].items():
            self.counters[level].update(codes)
        self._statistics.add({k: v for k, v in outputs.items() if k.startswith("codebook/")})
        stepped = trainer.global_step != self._seen_step
        self._seen_step = trainer.global_step
        if stepped and trainer.global_step % self.every == 0:
            self._report(trainer)

    def state_dict(self) -> dict[str, Any]:
        """The counts of the unfinished window."""
        counts: dict[str, Tensor] = {}
        for level, counter in self.counters.items():
            with counter.sync_context():
                counts[level] = _counts(counter).cpu()
        return {"counts": counts, "statistics": self._statistics.state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting where the run stopped."""
        self._restored = state_dict["counts"]
        self._statistics = _Means.from_state(state_dict["statistics"])

    def _listen(self, scores: Tensor, step: int) -> None:
        """In the last step of a window, keep the length of every position's gradient."""
        if scores.requires_grad and (step + 1) % self.every == 0:
            scores.register_hook(self._keep)  # type: ignore[no-untyped-call]

    def _keep(self, gradient: Tensor) -> None:
        lengths = gradient.detach().float().norm(dim=1).flatten()  # (B, K, H, W) -> (B * H * W,)
        self._gradient = lengths * len(lengths)

    def _report(self, trainer: Trainer) -> None:
        step, values = trainer.global_step, self._statistics.take()
        worst = 1.0
        for level, counter in self.counters.items():
            place = "codebook" if level == "all" else f"codebook/{level}"
            found = {name: float(value) for name, value in counter.compute().items()}
            values |= {f"{place}/{name}": value for name, value in found.items()}
            worst = min(worst, found["usage_of_ceiling"])
            self._draw(trainer, f"{place}/histogram", counter)
            counter.reset()
        self._alarm(
            values,
            "codebook/collapsed",
            worst < self.collapsed_below,
            f"codes in use have fallen to {worst:.1%} of what so many tokens could use: the "
            "codebook collapses. Start from k-means, revive dead codes, or lower the rate.",
        )
        if self._gradient is not None:
            values |= self._gradients()
        for logger in trainer.loggers:
            logger.log_metrics(values, step=step)

    def _gradients(self) -> dict[str, float]:
        assert self._gradient is not None
        lengths, self._gradient = self._gradient, None
        largest = float(lengths.max())
        vanished = float((lengths <= VANISHED * largest).float().mean())
        values = {
            "codebook/score_gradient_median": float(lengths.median()),
            "codebook/score_gradient_max": largest,
            "codebook/score_gradient_vanished": vanished,
        }
        self._alarm(
            values,
            "codebook/scores_vanish",
            vanished > self.vanished_above,
            f"{vanished:.0%} of the positions get no gradient through their scores: the "
            "temperature is too low. The DALL-E paper ends at 1/16.",
        )
        return values

    def _alarm(self, values: dict[str, float], name: str, rings: bool, message: str) -> None:
        values[name] = float(rings)
        if rings and not self._alarms.get(name, False):
            log.warning(message)
        self._alarms[name] = rings

    def _draw(self, trainer: Trainer, key: str, counter: Metric) -> None:
        takers = [logger for logger in trainer.loggers if hasattr(logger, "log_images")]
        if takers:
            with counter.sync_context():
                picture = histogram(_counts(counter).cpu().numpy())
            for logger in takers:
                logger.log_images(key, trainer.global_step, [picture])


class _Means:
    """Means of named scalars, kept on their device until asked for; replaced codes are summed."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.count = 0

    def add(self, values: Mapping[str, Tensor]) -> None:
        for name, value in values.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value.clone()
        self.count += 1

    def take(self) -> dict[str, float]:
        means = {
            name: float(total) / (1 if name.endswith("replaced_codes") else self.count)
            for name, total in self.sums.items()
        }
        self.sums, self.count = {}, 0
        return means

    def state(self) -> dict[str, Any]:
        return {"sums": {n: v.cpu() for n, v in self.sums.items()}, "count": self.count}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> _Means:
        means = cls()
        means.sums, means.count = dict(state["sums"]), state["count"]
        return means


def _counts(counter: Metric) -> Tensor:
    counts = counter.counts
    assert isinstance(counts, Tensor)
    return counts


def histogram(counts: npt.NDArray[np.int64], height: int = 96) -> npt.NDArray[np.uint8]:
    """How often codes were used, most used first, as a picture: (height, bars, 3).

    Each bar is the mean of neighbouring codes; a grey line marks what uniform use would be.
    """
    ordered = np.sort(counts)[::-1].astype(np.float64)
    edges = np.linspace(0, len(ordered), min(BARS, len(ordered)) + 1).round().astype(int)
    bars = np.add.reduceat(ordered, edges[:-1]) / np.diff(edges)
    top = max(bars.max(), 1e-9)
    filled = np.round(bars / top * height).astype(int)
    picture = np.full((height, len(bars), 3), 255, dtype=np.uint8)
    picture[height - 1 - int(ordered.mean() / top * (height - 1))] = 190
    rows = np.arange(height)[:, None]
    picture[rows >= height - filled[None, :]] = (38, 103, 214)
    return picture
