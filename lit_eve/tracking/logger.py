"""The logger of one stage's Trainer: everything goes into the spool, nothing waits."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from lit_eve.tracking import media
from lit_eve.tracking.pictures import Picture
from lit_eve.tracking.spool import Spool


class SpoolLogger(Logger):
    """Records one stage into `<stage directory>/tracking/`.

    Lightning's own MLFlowLogger stalls or ends a training when its server is away; this one cannot:
    a call costs the append of one line.
    """

    def __init__(self, stage_directory: Path, *, run_name: str | None = None) -> None:
        """Open the stage's spool.

        Args:
            stage_directory: `<run>/<stage>`; its name is the stage's.
            run_name: name of the child run in MLflow, by default stage and run id.

        Raises:
            OSError: if the directory cannot be written.
        """
        super().__init__()
        self.directory = Path(stage_directory).absolute()
        default = f"{self.directory.name} · {self.directory.parent.name}"
        self.spool = Spool(
            self.directory / "tracking",
            rank=getattr(rank_zero_only, "rank", None),
            tags={"mlflow.runName": run_name or default},
        )
        self.spool.status("RUNNING")

    @property
    def name(self) -> str:
        """The run's id."""
        return self.directory.parent.name

    @property
    def version(self) -> str:
        """The stage's name."""
        return self.directory.name

    @property
    def save_dir(self) -> str:
        """The stage's directory."""
        return str(self.directory)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Append one line. `epoch`, which Lightning adds to every call, is left out."""
        if "epoch" in metrics:
            metrics = {key: value for key, value in metrics.items() if key != "epoch"}
        self.spool.metrics(metrics, step or 0)

    def log_hyperparams(
        self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any
    ) -> None:
        """Nothing: the resolved experiment file of the run holds them all, `Spool.params` few."""

    @rank_zero_only
    def log_images(
        self,
        key: str,
        step: int,
        pictures: Sequence[Picture],
        captions: Sequence[str] = (),
        columns: int | None = None,
    ) -> None:
        """Record pictures as one grid; see `media.log_images`."""
        media.log_images(self.spool, key, step, pictures, captions, columns)

    @rank_zero_only
    def log_table(self, name: str, step: int, rows: Sequence[Mapping[str, object]]) -> None:
        """Record rows, pictures among them; see `media.log_table`."""
        media.log_table(self.spool, name, step, rows)

    @rank_zero_only
    def after_save_checkpoint(self, checkpoint_callback: Checkpoint) -> None:
        """What led to a checkpoint is on the disk as safely as the checkpoint."""
        self.spool.fsync()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Record how Lightning says the stage ended: `success`, or else it failed."""
        self.spool.status("FINISHED" if status == "success" else "FAILED")
