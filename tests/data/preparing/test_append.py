"""Adding to a dataset that is there: all or nothing, and nothing twice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lit_eve_data.disk.manifest import NAME, read_manifest, verify
from lit_eve_data.disk.reading import RecordStore
from lit_eve_data.preparing import prepare as module
from lit_eve_data.preparing.prepare import Preparing, prepare
from lit_eve_data.sources import FileOptions, Source, source_at

pytestmark = pytest.mark.usefixtures("prepared_in_this_process")


def pictures(folder: Path, kind: str, numbers: range) -> Source:
    (folder / kind).mkdir(parents=True)
    for number in numbers:
        pixels = np.full((16 + number, 20, 3), number, np.uint8)
        Image.fromarray(pixels).save(folder / kind / f"{number}.png")
    return source_at(folder, FileOptions(held_out=0.0))


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return prepare(pictures(tmp_path / "a", "cats", range(5)), tmp_path / "out")


MORE = Preparing(append=True)


def test_what_is_added_stands_behind_what_was_there(tmp_path: Path, dataset: Path) -> None:
    before = RecordStore(dataset)
    old = [before[n] for n in range(5)]
    digest = before.manifest.digest("train")
    for number, kind in ((5, "dogs"), (8, "cats")):
        source = pictures(tmp_path / kind / str(number), kind, range(number, number + 3))
        prepare(source, dataset, options=MORE)
    store = RecordStore(dataset)
    assert [store[n] for n in range(5)] == old == [before[n] for n in range(5)]
    assert {store[n].id for n in range(5, 8)} == {f"dogs/{n}.png" for n in range(5, 8)}
    assert len(store) == verify(dataset).splits["train"].samples == 11
    facts = store.sidecar
    for n in range(11):
        sample = store[n]
        assert facts.kinds[facts.kind[n]] == sample.kind
        assert facts.sizes[facts.first_image[n]].tolist() == [sample.images[0].height, 20]
    assert facts.chunk.tolist() == [0] * 5 + [1] * 3 + [2] * 3
    assert len(store.subset("cats")) == 8
    assert store.manifest.splits["train"].kinds == {"image/cats": 8, "image/dogs": 3}
    assert store.manifest.digest("train") != digest


def test_the_same_source_is_added_once(tmp_path: Path, dataset: Path) -> None:
    source = pictures(tmp_path / "b", "dogs", range(5, 8))
    for _ in range(2):
        prepare(source, dataset, options=MORE)
    assert len(RecordStore(dataset)) == 8
    assert len(read_manifest(dataset).parts) == 2


def test_an_interrupted_addition_leaves_the_dataset_as_it_was(
    tmp_path: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = pictures(tmp_path / "b", "dogs", range(5, 8))
    before = (dataset / NAME).read_bytes()

    def stop(directory: Path, manifest: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(module, "write_manifest", stop)
        with pytest.raises(KeyboardInterrupt):
            prepare(source, dataset, options=MORE)
    assert (dataset / NAME).read_bytes() == before
    assert len(RecordStore(dataset)) == 5
    prepare(source, dataset, options=MORE)  # the part is whole, and only has to be listed
    assert len(RecordStore(dataset)) == 8


def test_another_source_is_refused_unless_it_is_to_be_added(tmp_path: Path, dataset: Path) -> None:
    source = pictures(tmp_path / "b", "dogs", range(2))
    with pytest.raises(ValueError, match=r"made of something else.*--append"):
        prepare(source, dataset)
    with pytest.raises(ValueError, match=r"no dataset .*/nothing to append to"):
        prepare(source, tmp_path / "nothing", options=MORE)


@pytest.mark.parametrize("name", ["../x", "/x"])
def test_a_part_cannot_lie_outside(dataset: Path, tmp_path: Path, name: str) -> None:
    prepare(pictures(tmp_path / "b", "dogs", range(2)), dataset, options=MORE)
    text = (dataset / NAME).read_text()
    folder = read_manifest(dataset).parts[1].folder
    (dataset / NAME).write_text(text.replace(f'"folder": "{folder}"', f'"folder": "{name}"'))
    with pytest.raises(ValueError, match="outside the dataset"):
        RecordStore(dataset)
