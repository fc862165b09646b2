"""One rank reads a checkpoint's every byte, the others take its word."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lit_eve.checkpoints import CheckpointError, files
from lit_eve.running.going_on import newest_for_all
from lit_eve.strategies import Launch
from tests.checkpoints.saved import save

TWO = Launch(2, 1, "lightning")


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What rank zero has found, in a process that it has started."""
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID", "LIT_EVE_CHECKPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(files, "_verified", set())
    save(tmp_path, 100)
    os.truncate(save(tmp_path, 200), 50)
    messages: list[str] = []
    found = newest_for_all(tmp_path, TWO, messages.append)
    assert found is not None
    assert found.name == "step-00000100.ckpt"
    assert "step-00000200.ckpt is 50 bytes long" in messages[0]
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(files, "_verified", set())
    monkeypatch.setattr(files, "sha256_of", lambda file: pytest.fail(f"{file} is hashed"))
    return found


def test_a_rank_that_was_told_hashes_nothing_when_it_looks_nor_when_it_loads(told: Path) -> None:
    assert newest_for_all(told.parent, TWO, pytest.fail) == told
    files.verify(told)


def test_a_rank_that_was_told_sees_a_file_that_is_not_all_there(told: Path) -> None:
    os.truncate(told, 60)
    with pytest.raises(CheckpointError, match="is 60 bytes long instead of"):
        newest_for_all(told.parent, TWO, pytest.fail)


def test_a_rank_does_not_take_the_word_for_another_stage(told: Path) -> None:
    with pytest.raises(RuntimeError, match="rank zero looked for checkpoints in"):
        newest_for_all(told.parent / "other", TWO, pytest.fail)
