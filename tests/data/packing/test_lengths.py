from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from lit_eve_data.disk.reading import RecordStore
from lit_eve_data.disk.records import BadSampleError
from lit_eve_data.encoding.images import LongestEdge, SizePolicy
from lit_eve_data.encoding.vocabulary import bytes_text
from lit_eve_data.packing.lengths import SampleEncoder, TextEncoder, text_lengths, visual_lengths


@pytest.mark.parametrize("size", [None, LongestEdge(96)])
def test_lengths_are_those_of_the_items(
    scenes: RecordStore, encoder: SampleEncoder, size: SizePolicy | None
) -> None:
    if size is not None:
        cutter = encoder.cutter
        encoder = SampleEncoder(
            encoder.text, type(cutter)(cutter.layout, size, cutter.mean, cutter.std)
        )
    view = scenes.subset("questions")
    lengths = encoder.lengths("scenes", view, weight=0.5)
    for place in range(0, len(view), 19):
        item = encoder.item(view, place)
        assert lengths.tokens[place] == len(item.encoded)
        assert lengths.supervised[place] == sum(item.encoded.supervised)
        assert lengths.images[place] == len(item.images)
    assert (lengths.name, lengths.weight) == ("scenes", 0.5)
    assert np.array_equal(lengths.chunk, view.chunk)


def test_texts_alone_are_the_same_words_without_pictures_all_supervised(
    scenes: RecordStore, encoder: SampleEncoder
) -> None:
    alone = TextEncoder(encoder.text, encoder.cutter)
    view = scenes.subset("questions")
    lengths = alone.lengths("scenes", view, weight=1.0)
    for place in range(0, len(view), 19):
        item, seen = alone.item(view, place), encoder.item(view, place)
        (start, stop), ids = seen.encoded.images[0], seen.encoded.ids
        assert item.encoded.ids == ids[:start] + ids[stop:]
        assert (item.images, item.encoded.images) == ([], [])
        assert lengths.tokens[place] == len(item.encoded)
        assert lengths.supervised[place] == sum(item.encoded.supervised) == len(item.encoded) - 1


def test_text_is_counted_once_for_a_tokenizer(scenes_directory: Path, tmp_path: Path) -> None:
    store = RecordStore(Path(shutil.copytree(scenes_directory, tmp_path / "copy")))
    seen: list[int] = []
    counted = text_lengths(store, bytes_text(), lambda done, total: seen.append(done))
    assert seen[-1] == 300
    again = text_lengths(store, bytes_text(), lambda done, total: pytest.fail("counted twice"))
    assert np.array_equal(counted, again)


def test_a_read_only_dataset_uses_the_users_cache(
    scenes_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = RecordStore(scenes_directory)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    refused = []

    def replace(self: Path, target: Path) -> Path:
        if scenes_directory in target.parents:
            refused.append(target)
            raise PermissionError(13, "read-only", str(target))
        return Path(shutil.move(self, target))

    monkeypatch.setattr(Path, "replace", replace)
    text = bytes_text()
    counted = text_lengths(store, text)
    assert len(refused) == 1
    (cached,) = tmp_path.rglob("lengths-*.npy")
    assert np.array_equal(np.load(cached), counted)
    text_lengths(store, text, lambda done, total: pytest.fail("counted twice"))


def test_visual_tokens_follow_from_sizes(scenes: RecordStore, encoder: SampleEncoder) -> None:
    tokens = visual_lengths(scenes, encoder.cutter)
    height, width = scenes.sidecar.sizes[7].tolist()
    assert tokens[7] == 1 + height // 16 * (width // 16 + 1)


def test_a_sample_that_cannot_be_encoded_is_a_bad_one(
    scenes: RecordStore, encoder: SampleEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = scenes[0]
    sample.turns.reverse()
    monkeypatch.setattr(RecordStore, "__getitem__", lambda self, index: sample)
    with pytest.raises(BadSampleError, match=r"'train/0': turns.*must alternate") as caught:
        encoder.item(scenes.view, 0)
    assert caught.value.reason == "turns"
