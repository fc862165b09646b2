from __future__ import annotations

import json
from pathlib import Path

import pytest

from lit_eve_data import writing
from lit_eve_data.manifest import read_manifest
from lit_eve_data.reading import RecordStore
from lit_eve_data.scenes import ScenesOptions
from lit_eve_data.sources import ScenesSource
from lit_eve_data.writing import write_dataset

SOURCE = ScenesSource(ScenesOptions(train=40, val=0, test=6, sides=(32, 48)))


def test_workers_write_the_same_files(tmp_path: Path) -> None:
    for workers in (0, 2):
        write_dataset(SOURCE, tmp_path / str(workers), workers, chunk_bytes=100_000)
    stamps = [read_manifest(tmp_path / str(workers)).splits for workers in (0, 2)]
    for split in ("train", "test"):
        chunks = [
            {name: stamp for name, stamp in splits[split].files.items() if name.endswith(".bin")}
            for splits in stamps
        ]
        assert chunks[0] == chunks[1]
        assert len(chunks[0]) >= 1
    assert list(stamps[0]) == ["train", "test"]  # an empty split is left out


def test_records_are_plain_bytes_columns(tmp_path: Path) -> None:
    write_dataset(SOURCE, tmp_path, workers=0)
    config = json.loads((tmp_path / "train/index.json").read_text())["config"]
    assert config["data_format"] == ["bytes"]
    assert config["compression"] is config["encryption"] is None


def test_samples_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    write_dataset(SOURCE, tmp_path, workers=0)
    store = RecordStore(tmp_path)
    assert [store[index].id for index in range(40)] == [f"train/{index}" for index in range(40)]


def test_what_cannot_be_read_back_gets_no_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = writing._SplitWriter.close

    def damage_first(self: writing._SplitWriter) -> object:
        self._checksums[3] ^= 1  # as if another record had been handed in
        return done(self)

    monkeypatch.setattr(writing._SplitWriter, "close", damage_first)
    with pytest.raises(RuntimeError, match=r"record 3 of .* is not the one handed in"):
        write_dataset(SOURCE, tmp_path, workers=0)
    with pytest.raises(ValueError, match="was interrupted"):
        RecordStore(tmp_path)


def test_missing_records_get_no_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = writing._SplitWriter.close

    def lose_one(self: writing._SplitWriter) -> object:
        self._checksums.append(0)
        return done(self)

    monkeypatch.setattr(writing._SplitWriter, "close", lose_one)
    with pytest.raises(RuntimeError, match="40 records of 41"):
        write_dataset(SOURCE, tmp_path, workers=0)
