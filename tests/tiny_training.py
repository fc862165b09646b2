"""A training run of milliseconds whose every step depends on weights, data position and dropout."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

SAMPLES, BATCH, WIDTH = 24, 4, 6


class Loader:
    """Shuffled batches with an exact position, split over the ranks."""

    def __init__(self, samples: int = SAMPLES, batch: int = BATCH) -> None:
        self.samples, self.batch = samples, batch
        self.epoch, self.position = 0, 0

    def __len__(self) -> int:
        return self.samples // self.batch

    def __iter__(self) -> Iterator[Any]:
        if self.position == len(self):
            self.epoch, self.position = self.epoch + 1, 0
        while self.position < len(self):
            batch = self._batch()
            self.position += 1
            yield batch

    def _batch(self) -> Any:
        order = torch.randperm(
            self.samples, generator=torch.Generator().manual_seed(1000 + self.epoch)
        )
        picked = order[self.position * self.batch :][: self.batch].tolist()
        rank, world = 0, 1
        if torch.distributed.is_initialized():
            rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
        return self.collate(picked[rank::world], picked)

    def collate(self, own: list[int], joined: list[int]) -> Any:
        """The batch of this rank, which knows what the joined batch is."""
        pairs = [sample(index) for index in own]
        return torch.stack([x for x, _ in pairs]), torch.stack([y for _, y in pairs])

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        self.epoch, self.position = state["epoch"], state["position"]


def sample(index: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(index)
    return torch.randn(WIDTH, generator=generator), torch.randn(WIDTH, generator=generator)


class Net(nn.Module):
    """Two parts, as a patch embedding and a language model are."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH), nn.GELU())
        self.dropout = nn.Dropout(dropout)
        self.decoder = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.decoder(self.dropout(self.encoder(x))))


class Task(LightningModule):
    def __init__(self, dropout: float = 0.0, lr: float = 1e-2) -> None:
        super().__init__()
        self.dropout, self.lr = dropout, lr
        torch.manual_seed(7)
        self.model = Net(dropout)
        self.losses: list[float] = []

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        loss: Tensor = (self.model(batch[0]) - batch[1]).square().mean()
        self.losses.append(float(loss.detach()))
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        torch.rand(3)  # answers are sampled in validation: the random stream moves
        self.log("val/loss", (self.model(batch[0]) - batch[1]).square().mean())

    def configure_optimizers(self) -> Any:
        optimizer: Optimizer = AdamW(self.parameters(), lr=self.lr, weight_decay=0.1)
        schedule = LambdaLR(optimizer, lambda step: 1 / (1 + 0.1 * step))
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }


def trainer(callbacks: list[Callback], **options: Any) -> Trainer:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    settings: dict[str, Any] = {
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "use_distributed_sampler": False,
        "num_sanity_val_steps": 0,
        "limit_val_batches": 0,
        "max_epochs": -1,
    }
    if not any(isinstance(callback, _checkpoint_type()) for callback in callbacks):
        settings["enable_checkpointing"] = False
    return Trainer(callbacks=callbacks, **(settings | options))


def _checkpoint_type() -> type[Callback]:
    from lightning.pytorch.callbacks import Checkpoint

    return Checkpoint


def fit(
    task: LightningModule,
    callbacks: list[Callback],
    resume: Path | None = None,
    validate: bool = False,
    loader: Callable[[], Loader] = Loader,
    **options: Any,
) -> Trainer:
    if validate:
        options = {"limit_val_batches": 2, "check_val_every_n_epoch": None} | options
    run = trainer(callbacks, **options)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        warnings.filterwarnings("ignore", ".*isinstance.treespec, LeafSpec.*")
        run.fit(task, loader(), loader(), ckpt_path=resume)
    return run


def weights(task: LightningModule) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in task.state_dict().items()}


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


class Record(Logger):
    """Keeps what is logged under names that start with one of `prefixes`."""

    name = version = "record"

    def __init__(self, *prefixes: str) -> None:
        super().__init__()
        self.prefixes = prefixes
        self.lines: list[tuple[int | None, dict[str, float]]] = []

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        kept = {key: value for key, value in metrics.items() if key.startswith(self.prefixes)}
        if kept:
            self.lines.append((step, kept))

    def log_hyperparams(self, params: Any, *arguments: Any, **options: Any) -> None:
        pass
