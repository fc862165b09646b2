from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lit_eve_data.builtin.scenes import ScenesOptions
from lit_eve_data.disk.manifest import hash_file, read_manifest, verify
from lit_eve_data.disk.reading import RecordStore
from lit_eve_data.disk.records import BadSampleError, Sample, StoredImage, encode
from lit_eve_data.preparing import chunks
from lit_eve_data.preparing.chunks import litdata_config, write_chunk
from lit_eve_data.preparing.split_writer import SplitWriter
from lit_eve_data.preparing.writing import WritingOptions, write_dataset
from lit_eve_data.sources import ScenesSource

SCENES = ScenesSource(ScenesOptions(train=40, val=0, test=6, sides=(32, 48)))
HERE = WritingOptions(workers=0, chunk_bytes=20_000)


class Stopped(BaseException):
    """Stands for a process that is killed: nothing catches it."""


class Numbers:
    """A source of numbered pictures; some numbers are bad, one may end the process."""

    def __init__(self, bad: Mapping[int, str] = {}, stop: int = -1) -> None:
        self.bad, self.stop = bad, stop

    def description(self) -> dict[str, Any]:
        return {"type": "numbers"}

    def splits(self) -> Mapping[str, Sequence[int]]:
        return {"train": range(90), "val": range(90, 100)}

    @property
    def maker(self) -> Numbers:
        return self

    def __call__(self, entry: int) -> bytes:
        if entry == self.stop:
            raise Stopped
        if entry in self.bad:
            raise BadSampleError(self.bad[entry], f"number {entry} is bad")
        size = 10 + entry % 7
        image = StoredImage.raw(np.full((size, size, 3), entry, np.uint8))
        return encode(Sample(str(entry), f"kind/{entry % 3}", [], [image]))

    def name(self, entry: int) -> str:
        return f"number {entry}"


def ids(directory: Path, split: str) -> list[int]:
    store = RecordStore(directory, split)
    return [int(store[index].id) for index in range(len(store))]


def test_workers_write_the_same_files(tmp_path: Path) -> None:
    for workers in (0, 2):
        options = WritingOptions(workers, chunk_bytes=100_000)
        write_dataset(SCENES, tmp_path / str(workers), options)
    one, other = (read_manifest(tmp_path / str(workers)).splits for workers in (0, 2))
    assert list(one) == ["train", "test"]  # an empty split is left out
    for split in one:
        names = [name for name in one[split].files if name.endswith(".bin")]
        assert len(names) >= 1
        assert [one[split].files[n] for n in names] == [other[split].files[n] for n in names]


def test_a_chunk_is_the_one_litdata_writes(tmp_path: Path) -> None:
    from litdata.streaming.writer import BinaryWriter  # type: ignore[import-untyped]

    records = [bytes([number]) * (number * 37) for number in range(9)]
    theirs = BinaryWriter(str(tmp_path), chunk_bytes=1 << 20)
    for number, record in enumerate(records):
        theirs.add_item(number, record)
    theirs.done()
    stamp = write_chunk(tmp_path / "ours.bin", records)
    assert (tmp_path / "ours.bin").read_bytes() == (tmp_path / "chunk-0-0.bin").read_bytes()
    assert stamp == hash_file(tmp_path / "ours.bin")
    index = json.loads((tmp_path / "0.index.json").read_text())
    assert litdata_config() == index["config"]


def test_a_chunk_that_offsets_cannot_address_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "_LARGEST", 100)
    with pytest.raises(ValueError, match=r"more than a chunk can hold\. Lower chunk_bytes"):
        write_chunk(tmp_path / "a.bin", [bytes(50), bytes(50)])


def test_records_are_plain_bytes_columns(tmp_path: Path) -> None:
    write_dataset(Numbers(), tmp_path, HERE)
    index = json.loads((tmp_path / "train/index.json").read_text())
    assert index["config"]["data_format"] == ["bytes"]
    assert index["config"]["compression"] is index["config"]["encryption"] is None
    assert len(index["chunks"]) >= 3
    assert ids(tmp_path, "train") == list(range(90))
    assert ids(tmp_path, "val") == list(range(90, 100))
    assert read_manifest(tmp_path).splits["val"].kinds == {"kind/0": 4, "kind/1": 3, "kind/2": 3}


def test_nothing_is_left_of_the_making(tmp_path: Path) -> None:
    write_dataset(Numbers(bad={3: "odd"}), tmp_path, WritingOptions(0, max_rejects=0.1))
    left = {path.name for path in (tmp_path / "train").iterdir()}
    assert left == {"chunk-0-0.bin", "index.json", "samples.npz", "rejects.jsonl"}
    listed = read_manifest(tmp_path).splits["train"].files
    assert {f"train/{name}" for name in left} == set(listed)


# Chunks hold about 45 samples: stops lie before the first, inside, at borders, and in `val`.
@pytest.mark.parametrize("stops", [(0,), (30,), (46, 47), (89,), (90,), (99,), (20, 60, 95)])
def test_an_interrupted_dataset_is_continued(tmp_path: Path, stops: tuple[int, ...]) -> None:
    bad = {5: "odd", 50: "odd", 51: "even", 92: "odd"}
    options = WritingOptions(0, max_rejects=0.1, chunk_bytes=20_000)
    for stop in stops:
        with pytest.raises(Stopped):
            write_dataset(Numbers(bad, stop), tmp_path, options)
        with pytest.raises(ValueError, match="was interrupted"):
            RecordStore(tmp_path)
        for split in ("train", "val"):
            if not (tmp_path / split / "split.json").exists():
                (tmp_path / split / "chunk-0-9.bin").write_bytes(b"half-written")
    write_dataset(Numbers(bad), tmp_path, options)
    assert ids(tmp_path, "train") == [n for n in range(90) if n not in bad]
    assert ids(tmp_path, "val") == [n for n in range(90, 100) if n not in bad]
    assert verify(tmp_path).splits["train"].rejects == {"odd": 2, "even": 1}
    rejects = (tmp_path / "train/rejects.jsonl").read_text().splitlines()
    assert [json.loads(line)["name"] for line in rejects] == ["number 5", "number 50", "number 51"]
    assert not list(tmp_path.rglob("chunk-0-9.bin"))


def test_finished_chunks_are_not_made_again(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        write_dataset(Numbers(stop=60), tmp_path, HERE)
    made: list[int] = []

    class Counting(Numbers):
        def __call__(self, entry: int) -> bytes:
            made.append(entry)
            return super().__call__(entry)

    write_dataset(Counting(), tmp_path, HERE)
    assert min(made) >= 30
    assert sorted(set(made)) == made == list(range(made[0], 100))


def test_a_result_is_independent_of_interruptions(tmp_path: Path) -> None:
    write_dataset(Numbers(), tmp_path / "straight", HERE)
    with pytest.raises(Stopped):
        write_dataset(Numbers(stop=70), tmp_path / "twice", HERE)
    write_dataset(Numbers(), tmp_path / "twice", HERE)
    for split in ("train", "val"):
        assert ids(tmp_path / "straight", split) == ids(tmp_path / "twice", split)
    straight, twice = (read_manifest(tmp_path / name) for name in ("straight", "twice"))
    assert straight == twice


def test_unusable_inputs_are_reported_and_left_out(tmp_path: Path) -> None:
    bad = {3: "truncated", 4: "truncated", 7: "missing"}
    write_dataset(Numbers(bad), tmp_path, WritingOptions(0, max_rejects=0.03))
    assert read_manifest(tmp_path).splits["train"].rejects == {"truncated": 2, "missing": 1}
    first = json.loads((tmp_path / "train/rejects.jsonl").read_text().splitlines()[0])
    assert first == {"name": "number 3", "reason": "truncated", "message": "number 3 is bad"}


def test_too_many_unusable_inputs_stop_the_work(tmp_path: Path) -> None:
    bad = {3: "truncated", 4: "truncated", 7: "missing"}
    with pytest.raises(
        ValueError, match=r"3 inputs .*2 x truncated, 1 x missing.*the 2 allowed.*number 7 is bad"
    ):
        write_dataset(Numbers(bad), tmp_path, WritingOptions(0, max_rejects=0.02))
    assert len((tmp_path / "train/rejects.jsonl").read_text().splitlines()) == 3
    write_dataset(Numbers(bad), tmp_path, WritingOptions(0, max_rejects=0.03))
    assert len(ids(tmp_path, "train")) == 87


def test_a_maker_that_breaks_in_an_unknown_way_rejects_its_input(tmp_path: Path) -> None:
    class Broken(Numbers):
        def __call__(self, entry: int) -> bytes:
            if entry == 8:
                raise ZeroDivisionError("decoders raise anything")
            return super().__call__(entry)

    write_dataset(Broken(), tmp_path, WritingOptions(0, max_rejects=0.01))
    (line,) = (tmp_path / "train/rejects.jsonl").read_text().splitlines()
    assert json.loads(line)["message"] == "ZeroDivisionError: decoders raise anything"


def test_a_source_without_a_usable_input_is_an_error(tmp_path: Path) -> None:
    nothing = Numbers(dict.fromkeys(range(90), "odd"))
    with pytest.raises(ValueError, match=r"no input of train could be used: \{'odd': 90\}"):
        write_dataset(nothing, tmp_path, WritingOptions(0, max_rejects=1.0))


def test_what_cannot_be_read_back_gets_no_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reread = SplitWriter._reread

    def damage_first(self: SplitWriter) -> None:
        chunk = self.folder / "chunk-0-1.bin"
        content = bytearray(chunk.read_bytes())
        content[-1] ^= 1
        chunk.write_bytes(content)
        reread(self)

    monkeypatch.setattr(SplitWriter, "_reread", damage_first)
    with pytest.raises(RuntimeError, match=r"record 67 .* is not the one handed in"):
        write_dataset(Numbers(), tmp_path, HERE)
    with pytest.raises(ValueError, match="was interrupted"):
        RecordStore(tmp_path)


def test_another_record_than_the_one_handed_in_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reread = SplitWriter._reread

    def swap_chunks(self: SplitWriter) -> None:
        first, second = (self.folder / f"chunk-0-{number}.bin" for number in (0, 1))
        shutil.copy(second, first)
        reread(self)

    monkeypatch.setattr(SplitWriter, "_reread", swap_chunks)
    with pytest.raises((RuntimeError, BadSampleError)):
        write_dataset(Numbers(), tmp_path, HERE)
