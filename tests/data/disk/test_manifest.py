"""A dataset that was changed, damaged or never finished is refused before anything is read."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lit_eve_data.disk.manifest import NAME, read_manifest, verify
from lit_eve_data.disk.reading import RecordStore


@pytest.fixture
def copy(scenes_directory: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(scenes_directory, tmp_path / "copy"))


def edit(path: Path, change: Callable[[Any], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def restamp(directory: Path, file: str) -> None:
    """What somebody who changes a file on purpose would do to its entry in the manifest."""
    content = (directory / file).read_bytes()
    stamp = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    split = file.split("/")[0]
    edit(directory / NAME, lambda m: m["splits"][split]["files"].update({file: stamp}))


def test_a_whole_dataset_is_read_and_verified(copy: Path) -> None:
    seen: list[tuple[int, int]] = []
    manifest = verify(copy, lambda done, total: seen.append((done, total)))
    assert manifest == read_manifest(copy)
    assert seen[-1] == (manifest.num_bytes, manifest.num_bytes)
    assert {name: split.samples for name, split in manifest.splits.items()} == {
        "train": 300,
        "val": 60,
        "test": 20,
    }
    assert sum(manifest.splits["train"].kinds.values()) == 300
    assert manifest.digest("train") != manifest.digest("val")


def test_without_a_manifest_nothing_is_read(copy: Path) -> None:
    (copy / NAME).unlink()
    with pytest.raises(ValueError, match=r"holds no MANIFEST\.json.*interrupted.*Prepare it again"):
        RecordStore(copy)


def test_an_index_is_never_made_up(copy: Path) -> None:
    (copy / "train/index.json").unlink()
    with pytest.raises(ValueError, match=r"index\.json is missing"):
        RecordStore(copy)
    assert not (copy / "train/index.json").exists()


def test_a_missing_or_shortened_chunk_is_noticed_before_training(copy: Path) -> None:
    chunk = copy / "train/chunk-0-1.bin"
    chunk.write_bytes(chunk.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"chunk-0-1\.bin has \d+ bytes instead of"):
        RecordStore(copy)
    chunk.unlink()
    with pytest.raises(ValueError, match=r"chunk-0-1\.bin is missing"):
        RecordStore(copy)


def test_verifying_finds_a_single_flipped_bit(copy: Path) -> None:
    chunk = copy / "val/chunk-0-0.bin"
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 1
    chunk.write_bytes(content)
    with pytest.raises(ValueError, match=r"val/chunk-0-0\.bin changed.*sha256"):
        verify(copy)


def test_an_index_that_was_edited_is_refused(copy: Path) -> None:
    edit(copy / "train/index.json", lambda index: index.update(updated_at="0"))
    restamp_size = (copy / "train/index.json").stat().st_size
    edit(
        copy / NAME,
        lambda m: m["splits"]["train"]["files"]["train/index.json"].update(bytes=restamp_size),
    )
    with pytest.raises(ValueError, match="not the one that was prepared"):
        RecordStore(copy)


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("form", [["pickle"], ["graph:pickle"], ["bytes", "pickle"], ["str"]])
def test_other_serializers_are_refused_even_with_a_fitting_manifest(
    copy: Path, form: list[str], tmp_path: Path
) -> None:
    edit(copy / "train/index.json", lambda index: index["config"].update(data_format=form))
    restamp(copy, "train/index.json")
    with pytest.raises(ValueError, match=r"only \['bytes'\] is read.*run code"):
        RecordStore(copy)


def test_a_pickle_is_not_run_even_behind_the_checks(copy: Path, tmp_path: Path) -> None:
    store = RecordStore(copy)
    edit(copy / "train/index.json", lambda index: index["config"].update(data_format=["pickle"]))
    chunk = copy / "train/chunk-0-0.bin"
    count, first, _ = (int.from_bytes(chunk.read_bytes()[n : n + 4], "little") for n in (0, 4, 8))
    assert first == 4 * (count + 2)
    content = bytearray(chunk.read_bytes())
    bomb = pickle.dumps(Bomb(tmp_path / "ran"))
    content[first + 4 : first + 4 + len(bomb)] = bomb
    chunk.write_bytes(content)
    with pytest.raises(RuntimeError, match="refusing to unpickle"):
        store.read(0)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["../outside.bin", "/etc/hostname", "sub\\..\\outside.bin"])
def test_chunk_names_cannot_leave_the_dataset(copy: Path, name: str) -> None:
    edit(copy / "train/index.json", lambda index: index["chunks"][0].update(filename=name))
    restamp(copy, "train/index.json")
    with pytest.raises(ValueError, match="not a file of this dataset"):
        RecordStore(copy)


def test_manifest_names_cannot_leave_the_dataset(copy: Path) -> None:
    stamp = {"bytes": 1, "sha256": ""}
    edit(copy / NAME, lambda m: m["splits"]["train"]["files"].update({"train/../../x": stamp}))
    with pytest.raises(ValueError, match="outside the dataset"):
        RecordStore(copy)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.update(schema=99),
        lambda m: m.pop("splits"),
        lambda m: m["splits"].update(train=3),
        lambda m: m["splits"]["train"]["files"].update({"x": {"size": 1}}),
    ],
)
def test_a_manifest_that_makes_no_sense_is_refused(
    copy: Path, change: Callable[[Any], None]
) -> None:
    edit(copy / NAME, change)
    with pytest.raises(ValueError, match=r"MANIFEST\.json cannot be used"):
        RecordStore(copy)


def test_a_damaged_sidecar_is_refused(copy: Path) -> None:
    sidecar = copy / "train/samples.npz"
    sidecar.write_bytes(b"\x00" * sidecar.stat().st_size)
    with pytest.raises(ValueError, match=r"samples\.npz cannot be read"):
        RecordStore(copy)


def test_an_unknown_split_names_those_there_are(copy: Path) -> None:
    with pytest.raises(ValueError, match="no split 'dev': it has train, val, test"):
        RecordStore(copy, "dev")
