from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from lit_eve_callbacks import step_watch
from lit_eve_callbacks.step_watch import StepWatch, peak_flops
from tests.tiny_training import Record, Task, fit, trainer

pytestmark = [  # of Lightning about itself
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec"),
]

STEP, WAIT, VALIDATION, SAVING = 7.0, 3.0, 1000.0, 500.0  # seconds of a clock that we move


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(step_watch, "time", clock)
    return clock


@dataclass
class Images:
    num_images: int = 5


@dataclass
class Batch:
    """2 rows of 4 slots, 6 of them filled."""

    segment_ids: Tensor
    images: Images
    num_samples: int = 3

    def to(self, device: Any, non_blocking: bool = False) -> Batch:
        return self


class SlowLoader:
    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def __len__(self) -> int:
        return 12

    def __iter__(self) -> Iterator[Batch]:
        for _ in range(12):
            self.clock.now += WAIT
            yield Batch(torch.tensor([[1, 1, 2, 0], [1, 2, 3, 0]]), Images())


class SlowTask(LightningModule):
    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock, self.model = clock, nn.Linear(1, 1)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        self.clock.now += STEP
        loss: Tensor = self.model(torch.ones(1)).sum()
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.clock.now += VALIDATION

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.0)


def watch(clock: Clock, watch: StepWatch, *more: Callback, **options: Any) -> Record:
    record = Record("perf/")
    loader = SlowLoader(clock)
    options = {"max_steps": 10, "logger": record, "log_every_n_steps": 1} | options
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(step_watch, "memory_peak", lambda device: 2**31)
        trainer([watch, *more], **options).fit(SlowTask(clock), loader, loader)
    return record


def test_a_report_states_what_was_counted_by_hand(clock: Clock) -> None:
    record = watch(clock, StepWatch(every=5, flops=lambda batch: 1e3, peak=1e3))
    assert [step for step, _ in record.lines] == [5, 10]
    step_seconds = WAIT + STEP
    assert record.lines[1][1] == pytest.approx(
        {
            "perf/steps_per_second": 1 / step_seconds,
            "perf/samples_per_second": 3 / step_seconds,
            "perf/images_per_second": 5 / step_seconds,
            "perf/tokens_per_second": 6 / step_seconds,
            "perf/padding_share": 2 / 8,
            "perf/data_wait_share": WAIT / step_seconds,
            "perf/model_flops_utilisation": 1 / step_seconds,
            "perf/memory_peak_gib": 2.0,
        }
    )


def test_the_first_step_is_left_out(clock: Clock) -> None:
    class SlowStart(Callback):
        def on_train_batch_start(
            self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
        ) -> None:
            clock.now += 1e6 if trainer.global_step == 0 else 0.0

    record = watch(clock, StepWatch(every=5), SlowStart())
    assert record.lines[0][1]["perf/steps_per_second"] == pytest.approx(1 / (WAIT + STEP))


def test_validation_and_saving_are_not_training(clock: Clock) -> None:
    class Save(Callback):
        def on_train_batch_end(
            self, trainer: Trainer, pl_module: LightningModule, *arguments: Any
        ) -> None:
            with trainer.profiler.profile("save_checkpoint"):  # type: ignore[attr-defined]
                clock.now += SAVING

    options: dict[str, Any] = {
        "limit_val_batches": 2,
        "check_val_every_n_epoch": None,
        "val_check_interval": 3,
    }
    record = watch(clock, StepWatch(every=5), Save(), **options)
    speeds = [line["perf/steps_per_second"] for _, line in record.lines]
    assert speeds == pytest.approx([1 / (WAIT + STEP)] * 2)
    assert record.lines[1][1]["perf/data_wait_share"] == pytest.approx(WAIT / (WAIT + STEP))


def test_with_accumulation_all_micro_batches_count(clock: Clock) -> None:
    record = watch(clock, StepWatch(every=2), max_steps=4, accumulate_grad_batches=3)
    assert record.lines[1][1]["perf/steps_per_second"] == pytest.approx(1 / (3 * (WAIT + STEP)))
    assert record.lines[1][1]["perf/samples_per_second"] == pytest.approx(3 / (WAIT + STEP))


def test_images_of_one_size_count_as_images() -> None:
    @dataclass
    class ImageBatch:
        pixels: Tensor

    window = step_watch.Window()
    window.count(ImageBatch(torch.zeros(7, 3, 8, 8)), 0.0)
    assert (window.images, window.slots, window.tokens) == (7, 0, None)


def test_tokens_are_counted_without_asking_the_device() -> None:
    batch = Batch(torch.ones(2, 4, dtype=torch.int64, device="meta"), Images())
    window = step_watch.Window()
    window.count(batch, 0.0)
    window.count(batch, 0.0)
    assert window.tokens is not None
    assert window.tokens.is_meta  # a meta tensor has no value: asking it for one would have raised


def test_memory_is_that_of_the_process_on_a_cpu() -> None:
    assert 2**26 < step_watch.memory_peak(torch.device("cpu")) < 2**40


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA GeForce RTX 4090", 165e12),
        ("a device nobody knows", None),
    ],
)
def test_a_device_is_known_by_its_name(name: str, peak: float | None) -> None:
    assert peak_flops(name) == peak


def test_without_a_logger_the_newest_report_is_still_there() -> None:
    callback = StepWatch(every=2)
    fit(Task(), [callback], max_steps=4)
    assert callback.latest["steps_per_second"] > 0


def test_an_impossible_interval_is_refused() -> None:
    with pytest.raises(ValueError, match="give 1 or more"):
        StepWatch(every=0)
