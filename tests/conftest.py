"""What many tests share: one folder of prepared data, one tiny run of the quickstart."""

from __future__ import annotations

import io
import os
import signal
import sys
from pathlib import Path

import pytest
import torch
from rich.console import Console

from tests.files import QUICKSTART, UNTRACKED

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # a test's processes need not compile torch again
sys.dont_write_bytecode = False
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored by what a shell starts with `&`


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Four cores at most for the whole suite; this process for a file or a test that was named."""
    named = config.args_source is not pytest.Config.ArgsSource.TESTPATHS
    return 0 if named else min(4, os.cpu_count() or 1)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Small tensors gain nothing from more, and processes of a test share the cores."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Root of prepared data, filled once by whoever needs it first."""
    return tmp_path_factory.mktemp("datasets")


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory, datasets: Path) -> Path:
    """A finished run of the quickstart, shrunk; read only."""
    from lit_eve.running import run
    from lit_eve.running.directory import RUN_VARIABLE

    os.environ.pop(RUN_VARIABLE, None)  # of a run that another fixture has made for the same test
    directory = run.start(
        QUICKSTART,
        [UNTRACKED],
        tiny=True,
        runs=tmp_path_factory.mktemp("runs"),
        data=datasets,
        first=None,
        console=Console(file=io.StringIO()),
    )
    return directory.path
