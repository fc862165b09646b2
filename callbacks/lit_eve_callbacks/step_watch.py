"""How fast training is, and what it waits for.

Everything is counted on the host, or on the device without asking it; the device is asked once per
window. Lightning's `self.log` would cost 0.2 ms a metric on every step.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.profilers import Profiler
from torch import Tensor

PEAK_FLOPS = {
    "A100": 312e12,
    "A10G": 70e12,
    "B200": 2250e12,
    "GH200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "H200": 989e12,
    "L4": 121e12,
    "L40S": 362e12,
    "RTX 3090": 71e12,
    "RTX 4090": 165e12,
}
"""Dense bfloat16 tensor-core peak by a part of the device's name; from the vendors' data sheets,
without the factor two for sparsity, accumulating in float32."""


def peak_flops(device_name: str) -> float | None:
    """Dense bfloat16 peak of a device in FLOP/s, or None if it is not in the table."""
    words = device_name.replace("-", " ").replace("NVIDIA", " ")
    fitting = [name for name in PEAK_FLOPS if all(part in words.split() for part in name.split())]
    return PEAK_FLOPS[max(fitting, key=len)] if fitting else None


@dataclass
class Window:
    """What has been counted since the last report, on this rank."""

    steps: int = 0
    samples: int = 0
    images: int = 0
    slots: int = 0
    tokens: Tensor | None = None
    """Slots that hold something, counted on the device."""
    flops: float = 0.0
    waited: float = 0.0
    """Seconds in which the loop had no batch."""
    elsewhere: float = 0.0
    """Seconds in validation and saving, which are not training."""
    started: float = field(default_factory=lambda: time.perf_counter())

    def count(self, batch: Any, flops: float) -> None:
        """Add a micro-batch: packed rows, or images of one size."""
        self.flops += flops
        self.samples += int(getattr(batch, "num_samples", 0))
        segments = getattr(batch, "segment_ids", None)
        if isinstance(segments, Tensor):
            self.slots += segments.numel()
            filled = (segments != 0).sum()
            self.tokens = filled if self.tokens is None else self.tokens + filled
        pixels = getattr(batch, "pixels", None)
        packed = getattr(batch, "images", None)
        if packed is not None:
            self.images += int(packed.num_images)
        elif isinstance(pixels, Tensor):
            self.images += pixels.shape[0]


class StepWatch(Callback):
    """Reports speed, waiting and memory every `every` optimizer steps, as `perf/...`.

    Args:
        every: optimizer steps per report; the first report leaves out the first step, which warms
            everything up.
        flops: training arithmetic of one micro-batch on this rank, 2 per multiply-add, forward and
            backward, without what recomputing activations adds; needed for utilisation.
        peak: FLOP/s of one device; looked up by its name if None.

    Raises:
        ValueError: if `every` is not positive.

    Attributes:
        latest: the newest report, on every rank.

    Metrics, over all ranks:
        tokens_per_second: filled slots, not padding.
        samples_per_second, images_per_second, steps_per_second: likewise.
        padding_share: of the slots of the rows.
        data_wait_share: time without a batch / time in training. The slowest rank's.
        model_flops_utilisation: `flops` of all ranks / (time * ranks * peak), as PaLM's MFU
            (Chowdhery et al. 2022, arXiv:2204.02311, appendix B).
        memory_peak_gib: the largest of any rank; of the device, on a CPU of the process.
    """

    def __init__(
        self,
        every: int = 10,
        flops: Callable[[Any], float] | None = None,
        peak: float | None = None,
    ) -> None:
        if every < 1:
            raise ValueError(f"a report every {every} steps is not possible: give 1 or more.")
        self.every, self.flops, self.peak = every, flops, peak
        self.latest: dict[str, float] = {}
        self._window: Window | None = None
        self._seen_step = 0
        self._left: float | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen to what the loop says about fetching and saving."""
        self._seen_step, self._window = trainer.global_step, None
        profiler: Profiler = trainer.profiler  # type: ignore[attr-defined]  # set, not declared
        if not isinstance(profiler, _Listener):
            trainer.profiler = _Listener(profiler, self)  # type: ignore[attr-defined]
        if self.peak is None and pl_module.device.type == "cuda":
            self.peak = peak_flops(torch.cuda.get_device_name(pl_module.device))

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Count; report when a window is full."""
        stepped = trainer.global_step != self._seen_step
        self._seen_step = trainer.global_step
        if self._window is None:
            if stepped:
                self._window = Window()
            return
        self._window.count(batch, self.flops(batch) if self.flops is not None else 0.0)
        self._window.steps += int(stepped)
        if stepped and trainer.global_step % self.every == 0:
            self.latest = self._report(trainer, pl_module)
            self._window = Window()
            for logger in trainer.loggers:
                logger.log_metrics(
                    {f"perf/{name}": value for name, value in self.latest.items()},
                    step=trainer.global_step,
                )

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Training stands still from here."""
        self._left = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Training goes on."""
        if self._window is not None and self._left is not None:
            self._window.elsewhere += time.perf_counter() - self._left
        self._left = None

    def heard(self, action: str, seconds: float) -> None:
        """Something of the loop took so long."""
        if self._window is None or self._left is not None:
            return
        if action == "save_checkpoint":
            self._window.elsewhere += seconds
        else:
            self._window.waited += seconds

    def _report(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, float]:
        window, device = self._window, pl_module.device
        assert window is not None
        tokens = float(window.tokens) if window.tokens is not None else 0.0  # waits for the device
        seconds = max(time.perf_counter() - window.started - window.elsewhere, 1e-9)
        sums = [tokens, window.slots, window.samples, window.images, window.flops]
        peaks = [seconds, window.waited / seconds, memory_peak(device) / 2**30]
        sums, peaks = _over_ranks(sums, peaks, device)
        tokens, slots, samples, images, flops = sums
        seconds, waiting, memory = peaks
        report = {
            "steps_per_second": window.steps / seconds,
            "data_wait_share": waiting,
            "memory_peak_gib": memory,
        }
        if slots:
            report["tokens_per_second"] = tokens / seconds
            report["padding_share"] = 1 - tokens / slots
        if samples:
            report["samples_per_second"] = samples / seconds
        if images:
            report["images_per_second"] = images / seconds
        if flops and self.peak is not None:
            utilisation = flops / (seconds * trainer.world_size * self.peak)
            report["model_flops_utilisation"] = utilisation
        return report


def memory_peak(device: torch.device) -> int:
    """Most bytes in use at once so far: of the device's memory, on a CPU of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024


class _Listener(Profiler):
    """Passes everything on to the Trainer's profiler and times fetching and saving."""

    _heard = frozenset({"[_TrainingEpochLoop].train_dataloader_next", "save_checkpoint"})

    def __init__(self, inner: Profiler, watch: StepWatch) -> None:
        super().__init__(inner.dirpath, inner.filename)
        self._inner, self._watch = inner, watch
        self._began: dict[str, float] = {}

    def start(self, action_name: str) -> None:
        if action_name in self._heard:
            self._began[action_name] = time.perf_counter()
        self._inner.start(action_name)

    def stop(self, action_name: str) -> None:
        self._inner.stop(action_name)
        if action_name in self._began:
            seconds = time.perf_counter() - self._began.pop(action_name)
            self._watch.heard(action_name, seconds)

    def summary(self) -> str:
        return self._inner.summary()

    def describe(self) -> None:
        self._inner.describe()

    def teardown(self, stage: str | None) -> None:
        self._inner.teardown(stage)


def _over_ranks(
    sums: list[float], peaks: list[float], device: torch.device
) -> tuple[list[float], list[float]]:
    distributed = torch.distributed
    if not distributed.is_initialized() or distributed.get_world_size() == 1:
        return sums, peaks
    total = torch.tensor(sums, dtype=torch.float64, device=device)
    largest = torch.tensor(peaks, dtype=torch.float64, device=device)
    distributed.all_reduce(total)
    distributed.all_reduce(largest, distributed.ReduceOp.MAX)
    return total.tolist(), largest.tolist()
