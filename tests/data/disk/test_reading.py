from __future__ import annotations

import json
import os
import pickle
import shutil
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from litdata import StreamingDataset  # type: ignore[import-untyped]

from lit_eve_data.builtin.scenes import ScenesOptions
from lit_eve_data.disk.reading import RecordStore
from lit_eve_data.disk.records import BadSampleError, encode
from lit_eve_data.sources import scene_sample, source_from


def test_what_was_composed_is_read_back(scenes: RecordStore) -> None:
    options = source_from(scenes.manifest.source).options  # type: ignore[attr-defined]
    assert isinstance(options, ScenesOptions)
    for index in (0, 1, 57, 299):
        sample, scene = scene_sample(options, "train", index)
        assert scenes[index] == sample
        assert np.array_equal(scenes[index].images[0].pixels(), scene.pixels)


def test_litdata_reads_the_same_bytes(scenes: RecordStore) -> None:
    plain = StreamingDataset(str(scenes.directory / "train"), shuffle=False)
    assert len(plain) == len(scenes) == 300
    assert [bytes(blob) for blob in plain] == [scenes.read(index) for index in range(300)]


def test_a_record_is_bytes_of_its_own(scenes: RecordStore) -> None:
    assert type(scenes.read(0)) is bytes


def test_facts_are_known_without_reading(scenes: RecordStore) -> None:
    facts = scenes.sidecar
    for index in range(0, 300, 23):
        sample = scenes[index]
        assert facts.kinds[facts.kind[index]] == sample.kind
        image = facts.first_image[index]
        assert facts.sizes[image].tolist() == [sample.images[0].height, sample.images[0].width]
        assert facts.num_characters[index] == sum(len(turn["content"]) for turn in sample.turns)
    chunks = json.loads((scenes.directory / "train/index.json").read_text())["chunks"]
    assert len(chunks) > 3
    assert np.bincount(facts.chunk).tolist() == [chunk["chunk_size"] for chunk in chunks]


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("captions", {"caption/digits", "caption/colours", "caption/layout"}),
        ("read", {"question/read"}),
        ("question/read", {"question/read"}),
    ],
)
def test_subsets_are_chosen_by_kind(scenes: RecordStore, name: str, kinds: set[str]) -> None:
    subset = scenes.subset(name)
    assert {subset[place].kind for place in range(len(subset))} == kinds
    counts = scenes.manifest.splits["train"].kinds
    assert len(subset) == sum(counts[kind] for kind in kinds)
    assert len(subset.chunk) == len(subset)


def test_captions_and_questions_are_everything(scenes: RecordStore) -> None:
    both = np.concatenate([scenes.subset("captions").indices, scenes.subset("questions").indices])
    assert sorted(both.tolist()) == scenes.view.indices.tolist() == list(range(300))


def test_an_unknown_subset_names_those_there_are(scenes: RecordStore) -> None:
    with pytest.raises(ValueError, match=r"no subset 'reed': .*captions.*questions.*read"):
        scenes.subset("reed")


def test_held_out_questions_are_the_same_every_time(scenes_directory: Path) -> None:
    store = RecordStore(scenes_directory, "val")
    first = store.questions("read", 3)
    assert first == store.questions("read", 3)
    assert [sample.kind for sample in first] == ["question/read"] * 3
    assert len(store.questions("read", 10_000)) == len(store.subset("read"))


def test_texts_have_no_placeholders(scenes: RecordStore) -> None:
    texts = list(scenes.texts(10))
    assert len(texts) == 20
    assert not any("<image>" in text for text in texts)


def test_an_index_beyond_the_end_is_an_error(scenes: RecordStore) -> None:
    with pytest.raises(IndexError, match="sample 300 of 300"):
        scenes[300]
    with pytest.raises(IndexError):
        scenes[-1]


def test_a_store_travels_to_other_processes(scenes: RecordStore) -> None:
    scenes.read(0)
    assert pickle.loads(pickle.dumps(scenes))[5] == scenes[5]


def test_a_flipped_bit_is_a_bad_sample_and_not_another_picture(
    scenes_directory: Path, tmp_path: Path
) -> None:
    directory = Path(shutil.copytree(scenes_directory, tmp_path / "copy"))
    chunk = directory / "train/chunk-0-0.bin"
    content = bytearray(chunk.read_bytes())
    content[-10] ^= 4  # in the pixels of the chunk's last sample
    chunk.write_bytes(content)
    store = RecordStore(directory)
    last = int(np.bincount(store.sidecar.chunk)[0]) - 1
    with pytest.raises(BadSampleError, match="checksum differs") as caught:
        store[last]
    assert caught.value.reason == "damaged"
    assert encode(store[last - 1]) == store.read(last - 1)


def _child(store: RecordStore, queue: object) -> None:
    blob = store.read(3)
    queue.put((store._process == os.getpid(), blob))  # type: ignore[attr-defined]


def test_a_forked_process_opens_the_chunks_itself(scenes: RecordStore) -> None:
    scenes.read(0)
    context = get_context("fork")
    queue = context.SimpleQueue()
    child = context.Process(target=_child, args=(scenes, queue))
    child.start()
    opened_there, blob = queue.get()
    child.join()
    assert opened_there
    assert blob == scenes.read(3)
