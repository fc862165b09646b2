"""Files of other tools' own writers, through the whole of `prepare`: the same samples out as in."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as arrow  # type: ignore[import-untyped]
import pytest
import webdataset
from PIL import Image
from pyarrow import parquet

from lit_eve_data.disk.manifest import verify
from lit_eve_data.disk.reading import RecordStore
from lit_eve_data.disk.records import Sample
from lit_eve_data.preparing.writing import WritingOptions, write_dataset
from lit_eve_data.sources import FileOptions, source_at

FORMS = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}
Truth = dict[str, tuple[bytes, str]]
"""Words of a sample: its picture, and what is answered."""


def picture(number: int, form: str = "jpg") -> bytes:
    content = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (24 + number, 40, 3), np.uint8)
    Image.fromarray(pixels).save(content, FORMS[form])
    return content.getvalue()


def samples(address: Path, to: Path, held_out: float = 0.25) -> dict[str, list[Sample]]:
    source = source_at(address, FileOptions(held_out=held_out))
    write_dataset(source, to, WritingOptions(0, chunk_bytes=20_000, max_rejects=0.9))
    return {
        split: [store[n] for n in range(len(store))]
        for split in verify(to).splits
        for store in [RecordStore(to, split)]
    }


def found(splits: dict[str, list[Sample]]) -> Truth:
    every = [sample for part in splits.values() for sample in part]
    assert all(len(sample.images) == 1 for sample in every)
    return {
        sample.turns[0]["content"]: (sample.images[0].data, sample.turns[-1]["content"])
        for sample in every
    }


def talk(question: str, answer: str) -> list[dict[str, str]]:
    return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]


def test_a_llava_json_gives_what_it_holds(tmp_path: Path) -> None:
    entries, truth = [], Truth()
    for number in range(24):
        form = list(FORMS)[number % 3]
        name, data = f"{number}.{form}", picture(number, form)
        (tmp_path / name).write_bytes(data)
        question, answer = f"<image>\nWhat is {number}?", f"It is {number}. \N{SNOWMAN}"
        entries.append({"id": number, "image": name, "conversations": talk(question, answer)})
        truth[question] = (data, answer)
    (tmp_path / "talk.json").write_text(json.dumps(entries))
    splits = samples(tmp_path / "talk.json", tmp_path / "out")
    assert found(splits) == truth
    assert {name: len(part) for name, part in splits.items()} == {"train": 18, "val": 6}


def test_tars_of_webdataset_give_what_was_written(tmp_path: Path) -> None:
    truth = Truth()
    (tmp_path / "tars").mkdir()
    with webdataset.ShardWriter(f"{tmp_path}/tars/%05d.tar", maxcount=10, verbose=0) as writer:
        for number in range(24):
            form = list(FORMS)[number % 3]
            data, question = picture(number, form), f"<image>\nWhich {number}?"
            about = {"conversations": talk(question, str(number)), "url": "x"}
            writer.write({"__key__": f"{number:04}", form: data, "json": about})
            truth[question] = (data, str(number))
    assert len(list((tmp_path / "tars").iterdir())) == 3
    assert found(samples(tmp_path / "tars", tmp_path / "out")) == truth


def test_parquet_of_pyarrow_gives_what_was_written(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = []
    truth = Truth()
    for number in range(24):
        data, question = picture(number), f"Whose {number}?"
        rows.append(
            {"images": [{"bytes": data, "path": None}], "question": question, "answer": "A"}
        )
        truth[f"<image>\n{question}"] = (data, "A")
    table = arrow.Table.from_pylist(rows)
    parquet.write_table(table, tmp_path / "a.parquet", row_group_size=7, compression="zstd")
    assert found(samples(tmp_path / "a.parquet", tmp_path / "out")) == truth


def repeated(kind: str, folder: Path) -> Path:
    """Forty captions of eight pictures, five of each under other names."""
    entries = [(picture(number % 8), f"words {number}") for number in range(40)]
    if kind == "webdataset":
        with webdataset.TarWriter(str(folder / "a.tar")) as writer:
            for number, (data, words) in enumerate(entries):
                writer.write({"__key__": str(number), "jpg": data, "txt": words})
        return folder / "a.tar"
    table = arrow.Table.from_pylist([{"image": data, "caption": words} for data, words in entries])
    parquet.write_table(table, folder / "a.parquet", row_group_size=9)
    return folder / "a.parquet"


@pytest.mark.parametrize("kind", ["webdataset", "parquet"])
def test_samples_with_one_picture_are_held_out_together(kind: str, tmp_path: Path) -> None:
    splits = samples(repeated(kind, tmp_path), tmp_path / "out")
    pictures = {name: {s.images[0].data for s in part} for name, part in splits.items()}
    assert {name: len(part) for name, part in splits.items()} == {"train": 30, "val": 10}
    assert not pictures["train"] & pictures["val"]


def test_samples_that_share_a_picture_through_others_are_held_out_together(tmp_path: Path) -> None:
    pairs = [["0.jpg", "1.jpg"], ["2.jpg"], ["1.jpg", "3.jpg"], ["3.jpg"], ["4.jpg"]]
    entries = [
        {"id": n, "image": names, "conversations": talk("<image>" * len(names), "A")}
        for n, names in enumerate(pairs)
    ]
    for number in range(5):
        (tmp_path / f"{number}.jpg").write_bytes(picture(number))
    (tmp_path / "talk.json").write_text(json.dumps(entries))
    for seed in range(8):
        splits = source_at(tmp_path / "talk.json", FileOptions(held_out=0.4, seed=seed)).splits()
        places = [{place for place, _ in part} for part in splits.values()]
        assert all({0, 2, 3} <= part or not {0, 2, 3} & part for part in places)
        assert len(places) == 2


def test_numbered_pictures_of_a_sample_are_all_kept_and_others_refused(tmp_path: Path) -> None:
    both = {"0.jpg": picture(0), "1.png": picture(1, "png"), "txt": "two"}
    unsaid = {"jpg": picture(2), "seg.png": picture(3, "png"), "txt": "a picture and its mask"}
    twice = {"0.jpg": picture(4), "0.png": picture(4, "png")}
    with webdataset.TarWriter(str(tmp_path / "a.tar")) as writer:
        for key, sample in (("a", both), ("b", unsaid), ("c", twice)):
            writer.write({"__key__": key, **sample})
    splits = samples(tmp_path / "a.tar", tmp_path / "out", held_out=0.0)
    (made,) = splits["train"]
    assert [image.data for image in made.images] == [both["0.jpg"], both["1.png"]]
    assert made.turns[0]["content"] == "<image>\n<image>\nDescribe the images."
    lines = (tmp_path / "out/train/rejects.jsonl").read_text().splitlines()
    assert {(e["name"], e["reason"]) for e in map(json.loads, lines)} == {
        ("a.tar/b", "several_images"),
        ("a.tar/c", "several_images"),
    }


def test_rows_with_pictures_in_two_columns_are_refused(tmp_path: Path) -> None:
    rows = [{"image": picture(0), "jpg": None}, {"image": picture(1), "jpg": picture(2)}]
    parquet.write_table(arrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    splits = samples(tmp_path / "a.parquet", tmp_path / "out", held_out=0.0)
    assert [sample.images[0].data for sample in splits["train"]] == [picture(0)]
    assert '"several_images"' in (tmp_path / "out/train/rejects.jsonl").read_text()


@pytest.mark.parametrize("kind", ["llava", "coco", "folder"])
def test_a_picture_that_changes_makes_another_source(kind: str, tmp_path: Path) -> None:
    (tmp_path / "0.jpg").write_bytes(picture(0))
    (tmp_path / "1.jpg").write_bytes(picture(1))
    content: Any = [{"image": ["0.jpg", "../x", 3, "gone.jpg"], "conversations": []}]
    if kind == "coco":
        content = {
            "images": [{"id": 7, "file_name": "0.jpg"}],
            "annotations": [{"image_id": 7, "caption": "a"}],
        }
    (tmp_path / "a.json").write_text(json.dumps(content))
    address = tmp_path if kind == "folder" else tmp_path / "a.json"
    before = source_at(address, FileOptions()).description()
    assert source_at(address, FileOptions()).description() == before
    (tmp_path / "0.jpg").write_bytes(picture(0) + b"\0")
    assert source_at(address, FileOptions()).description() != before
