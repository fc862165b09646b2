"""The loader inside Lightning: a run resumed from a checkpoint sees the stream go on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn

from lit_eve_data.batches import PackedBatch
from lit_eve_data.disk.reading import RecordStore
from lit_eve_data.loading.loader import PackedLoader
from lit_eve_data.loading.working import Share
from lit_eve_data.packing.lengths import SampleEncoder
from lit_eve_data.packing.plan import PackingPlan

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*deprecated:FutureWarning")


class Recorder(LightningModule):
    """Notes what it is given, with Lightning's own counters."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.seen: list[tuple[int, int, int, bytes]] = []

    def training_step(self, batch: PackedBatch, batch_idx: int) -> Tensor:
        ids = batch.token_ids.numpy().tobytes()
        self.seen.append((self.current_epoch, batch_idx, self.global_step, ids))
        return self.weight * batch.labels_share

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1e-3)


def trainer(folder: Path, steps: int, micro: int) -> Trainer:
    keep = ModelCheckpoint(folder, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    return Trainer(
        max_steps=steps,
        max_epochs=-1,
        accumulate_grad_batches=micro,
        callbacks=[keep],
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


@pytest.fixture
def loader(scenes: RecordStore, encoder: SampleEncoder) -> Any:
    plan = PackingPlan([encoder.lengths("scenes", scenes.view, 1.0)], 256, 24, 0)

    def make(workers: int, micro: int) -> PackedLoader:
        share = Share(micro_batches=micro)
        return PackedLoader(plan, [scenes.view], encoder, 5, share, workers)

    return make


# 12 steps in virtual epochs of 5; 5 is saved at the border of an epoch.
@pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers")
@pytest.mark.filterwarnings("ignore:Checkpoint directory")
@pytest.mark.parametrize(("stop", "workers", "micro"), [(3, 2, 1), (5, 0, 1), (7, 0, 2)])
def test_lightning_goes_on_where_it_stopped(
    loader: Any, tmp_path: Path, stop: int, workers: int, micro: int
) -> None:
    straight = Recorder()
    trainer(tmp_path, 12, micro).fit(straight, loader(0, micro))
    assert len(straight.seen) == 12 * micro
    resumed = Recorder()
    checkpoint = str(tmp_path / f"step={stop}.ckpt")
    trainer(tmp_path, 12, micro).fit(
        resumed, loader(workers, micro), ckpt_path=checkpoint, weights_only=True
    )
    assert resumed.seen == straight.seen[stop * micro :]
