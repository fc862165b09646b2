from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lit_eve.tracking.spool import Spool
from lit_eve.tracking.store import connect, locate

if TYPE_CHECKING:
    from mlflow import MlflowClient


@pytest.fixture(autouse=True)
def _rank_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database without runs: its migrations take seconds, so they run once."""
    database = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    connect(locate(f"sqlite:///{database}"))
    return database


@pytest.fixture
def uri(tmp_path: Path, empty_database: Path) -> str:
    """A store of this test's own."""
    (tmp_path / "store").mkdir()
    shutil.copyfile(empty_database, tmp_path / "store" / "mlflow.db")
    return f"sqlite:///{tmp_path}/store/mlflow.db"


@pytest.fixture
def client(uri: str) -> MlflowClient:
    return connect(locate(uri))


@pytest.fixture
def run_directory(tmp_path: Path) -> Path:
    """A finished run of two stages, each with ten steps of two metrics."""
    run = tmp_path / "runs" / "digits" / "brisk-otter"
    own = Spool(run / "tracking")
    own.status("RUNNING")
    own.params({"seed": 0, "model.width": 128})
    own.note("**98 %** of digits read.")
    for name in ("align", "learn"):
        stage = Spool(run / name / "tracking", tags={"lit_eve.stage": name})
        stage.status("RUNNING")
        for step in range(10):
            stage.metrics({"train/loss": 1 / (step + 1), "perf/rate": 5.0}, step)
        stage.status("FINISHED")
        stage.close()
    own.status("FINISHED")
    own.close()
    return run


Points = Callable[[str, str], list[tuple[int, float]]]


@pytest.fixture
def points(client: MlflowClient) -> Points:
    """(step, value) of every recorded row of a metric, in the run of that name."""

    def read(run_name: str, key: str) -> list[tuple[int, float]]:
        experiments = [found.experiment_id for found in client.search_experiments()]
        runs = client.search_runs(experiments, f"attributes.run_name = '{run_name}'")
        assert len(runs) == 1
        history = client.get_metric_history(runs[0].info.run_id, key)
        return sorted((row.step, row.value) for row in history)

    return read
