from __future__ import annotations

import logging
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.utilities import rank_zero_only
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from lit_eve.tracking import media
from lit_eve.tracking.logger import SpoolLogger
from lit_eve.tracking.spool import Event, Spool, read_events

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),  # Lightning 2.6 on torch 2.13
]


class Slope(pl.LightningModule):
    def __init__(self, stop_at: int = -1) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.stop_at = stop_at

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        if batch_idx == self.stop_at:
            raise RuntimeError("the model broke")
        self.log("train/loss", self.weight.sum())
        return (self.weight * batch[0]).sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(logger: SpoolLogger, stop_at: int = -1) -> None:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    trainer = pl.Trainer(
        accelerator="cpu",
        logger=logger,
        max_steps=4,
        log_every_n_steps=1,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Slope(stop_at), DataLoader(TensorDataset(torch.ones(4, 1))))


def events(logger: SpoolLogger, kind: str) -> list[Event]:
    return [event for event, _ in read_events(logger.spool.path) if event["k"] == kind]


@pytest.fixture
def logger(tmp_path: Path) -> SpoolLogger:
    return SpoolLogger(tmp_path / "runs" / "digits" / "brisk-otter" / "learn")


def test_a_trainer_logs_into_the_spool(logger: SpoolLogger) -> None:
    fit(logger)
    assert [event["s"] for event in events(logger, "metrics")] == [0, 1, 2, 3]
    assert set(events(logger, "metrics")[0]["v"]) == {"train/loss"}
    assert [event["v"] for event in events(logger, "status")] == ["RUNNING", "FINISHED"]
    assert events(logger, "params") == []


def test_a_trainer_that_breaks_leaves_a_failed_stage(logger: SpoolLogger) -> None:
    with pytest.raises(RuntimeError, match="the model broke"):
        fit(logger, stop_at=2)
    assert [event["v"] for event in events(logger, "status")] == ["RUNNING", "FAILED"]
    assert [event["s"] for event in events(logger, "metrics")] == [0, 1]


def test_names_are_those_of_the_directories(logger: SpoolLogger) -> None:
    assert (logger.name, logger.version) == ("brisk-otter", "learn")
    assert logger.save_dir == str(logger.directory)
    assert events(logger, "tags")[0]["v"] == {"mlflow.runName": "learn · brisk-otter"}


def test_other_ranks_write_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    logger = SpoolLogger(tmp_path / "learn")
    logger.log_metrics({"train/loss": 1.0}, 0)
    logger.log_images("val/answers", 0, [np.zeros((8, 8, 3))])
    logger.log_table("answers", 0, [{"given": "7"}])
    logger.finalize("success")
    assert list(tmp_path.iterdir()) == []


def test_pictures_are_one_file_a_step(logger: SpoolLogger) -> None:
    for step in (0, 200):
        logger.log_images("val/answers", step, [np.zeros((8, 8, 3))] * 3, ["a", "b", "c"])
    recorded = events(logger, "image")
    assert [(event["key"], event["s"]) for event in recorded] == [
        ("val/answers", 0),
        ("val/answers", 200),
    ]
    for event in recorded:
        with Image.open(logger.spool.directory / event["path"]) as image:
            assert image.width == 2 * 204 + 12


def test_a_single_picture_stays_as_it_is(logger: SpoolLogger) -> None:
    logger.log_images("val/one", 0, [np.zeros((8, 9, 3))])
    with Image.open(logger.spool.directory / events(logger, "image")[0]["path"]) as image:
        assert image.size == (9, 8)


def test_a_table_keeps_its_pictures_as_files(logger: SpoolLogger) -> None:
    rows = [{"picture": np.zeros((8, 8, 3)), "given": str(number)} for number in range(2)]
    logger.log_table("answers", 5, rows)
    [event] = events(logger, "table")
    assert [row["given"] for row in event["rows"]] == ["0", "1"]
    paths = [logger.spool.directory / row["picture"]["image"] for row in event["rows"]]
    assert all(path.exists() for path in paths)
    assert len(set(paths)) == 2


def test_rows_of_different_columns_are_an_error(logger: SpoolLogger) -> None:
    with pytest.raises(ValueError, match="the same columns in the same order"):
        logger.log_table("answers", 5, [{"a": 1}, {"b": 1}])


def test_a_picture_that_cannot_be_saved_does_not_stop_the_training(
    logger: SpoolLogger, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(self: Spool, name: str) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Spool, "media", full)
    media.log_images(logger.spool, "val/answers", 0, [np.zeros((8, 8, 3))])
    media.log_table(logger.spool, "answers", 0, [{"picture": np.zeros((8, 8, 3))}])
    assert events(logger, "image") == []
    assert events(logger, "table")[0]["rows"] == [{"picture": "(not saved)"}]
    assert "The training goes on" in caplog.text
