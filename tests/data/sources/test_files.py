"""From other tools' files to records: the same samples out as in, and what is refused."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as arrow  # type: ignore[import-untyped]
import pytest
from PIL import Image
from pyarrow import parquet

from lit_eve_data.disk.manifest import verify
from lit_eve_data.disk.reading import RecordStore
from lit_eve_data.disk.records import Sample
from lit_eve_data.preparing.writing import WritingOptions, write_dataset
from lit_eve_data.sources import FileOptions, source_at, source_from

ALL = FileOptions(held_out=0.0)


def jpeg(number: int, side: int = 32) -> bytes:
    content = io.BytesIO()
    Image.fromarray(np.full((side, side + 8, 3), 20 * number, np.uint8)).save(content, "JPEG")
    return content.getvalue()


def prepared(address: Path, to: Path, options: FileOptions = ALL, **given: Any) -> list[Sample]:
    """The samples that come of a source, by id."""
    source = source_at(address, options, **given)
    assert source_from(json.loads(json.dumps(source.description()))) == source
    write_dataset(source, to, WritingOptions(0, max_rejects=0.9))
    verify(to)
    store = RecordStore(to)
    return sorted((store[n] for n in range(len(store))), key=lambda sample: sample.id)


def rejects(to: Path) -> dict[str, str]:
    lines = (to / "train/rejects.jsonl").read_text().splitlines()
    return {entry["name"]: entry["reason"] for entry in map(json.loads, lines)}


def answer(sample: Sample) -> str:
    return sample.turns[-1]["content"]


def llava(folder: Path) -> Path:
    (folder / "coco").mkdir()
    for number in range(4):
        (folder / f"coco/{number}.jpg").write_bytes(jpeg(number))
    talk = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A"}]
    both = [{"from": "human", "value": "<image> or <image>?"}, {"from": "gpt", "value": "B"}]
    more = [*talk, {"from": "human", "value": "Sure?"}, {"from": "gpt", "value": "C"}]
    plain = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]
    entries: list[Any] = [
        {"id": "0", "image": "coco/0.jpg", "conversations": talk},
        {"id": "1", "image": ["coco/1.jpg", "coco/2.jpg"], "conversations": both},
        {"id": "2", "image": "coco/3.jpg", "conversations": more},
        {"id": "3", "conversations": plain},
        {"id": "4", "image": "coco/9.jpg", "conversations": talk},
        {"id": "5", "image": "../outside.jpg", "conversations": talk},
        {"id": "6", "image": "coco/0.jpg", "conversations": plain},
        "no object",
    ]
    (folder / "talk.json").write_text(json.dumps(entries))
    return folder / "talk.json"


def test_llava_json(tmp_path: Path) -> None:
    made = prepared(llava(tmp_path), tmp_path / "out")
    assert [(s.id, s.kind, answer(s), len(s.images)) for s in made] == [
        ("0", "conversation/image", "A", 1),
        ("1", "conversation/images", "B", 2),
        ("2", "conversation/image", "C", 1),
        ("3", "conversation/text", "Hello", 0),
    ]
    assert [i.data for i in made[1].images] == [jpeg(1), jpeg(2)]
    assert [turn["role"] for turn in made[2].turns] == ["user", "assistant"] * 2
    assert made[0].turns[0]["content"] == "<image>\nWhat?"
    assert list(rejects(tmp_path / "out").values()).count("missing") == 1
    assert set(rejects(tmp_path / "out").values()) == {"missing", "path", "placeholders", "turns"}


def tar(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            about = tarfile.TarInfo(name)
            about.size = len(content)
            archive.addfile(about, io.BytesIO(content))
    return path


def test_webdataset_tars(tmp_path: Path) -> None:
    files = {
        "000.jpg": jpeg(0),
        "000.txt": b"a cat",
        "001.jpg": jpeg(1),
        "001.json": json.dumps({"caption": "a dog", "url": "x"}).encode(),
        "002.jpg": jpeg(2)[:80],
        "002.txt": b"cut",
        "003.txt": b"no picture",
        "../004.jpg": jpeg(4),
        "005.jpg": jpeg(5),
        "005.txt": b"\xff\xfe",
    }
    made = prepared(tar(tmp_path / "00000.tar", files), tmp_path / "out")
    assert [(answer(s), s.images[0].data) for s in made] == [
        ("a cat", jpeg(0)),
        ("a dog", jpeg(1)),
    ]
    assert rejects(tmp_path / "out") == {
        "00000.tar/002": "truncated",
        "00000.tar/003": "missing",
        "00000.tar/../004": "path",
        "00000.tar/005": "bad_text",
    }


def test_a_tar_that_ends_early_gives_what_is_whole(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", {f"{n}.jpg": jpeg(n) for n in range(4)})
    path.write_bytes(path.read_bytes()[: 2 * 1536 + 900])
    made = prepared(path, tmp_path / "out")
    assert len(made) == 2
    assert "truncated" in rejects(tmp_path / "out").values()


def test_parquet_of_the_hub(tmp_path: Path) -> None:
    table = arrow.table(
        {
            "image": [{"bytes": jpeg(n), "path": None} for n in range(3)],
            "question": ["What?", "Which?", "Who?"],
            "answer": ["A", "B", ""],
        }
    )
    parquet.write_table(table, tmp_path / "a.parquet", row_group_size=2)
    made = prepared(tmp_path / "a.parquet", tmp_path / "out")
    assert [(s.turns[0]["content"], answer(s), s.images[0].data) for s in made] == [
        ("<image>\nWhat?", "A", jpeg(0)),
        ("<image>\nWhich?", "B", jpeg(1)),
    ]
    assert list(rejects(tmp_path / "out").values()) == ["empty_answer"]


def test_coco_captions(tmp_path: Path) -> None:
    (tmp_path / "7.jpg").write_bytes(jpeg(7))
    content = {
        "images": [{"id": 7, "file_name": "7.jpg"}],
        "annotations": [
            {"id": 1, "image_id": 7, "caption": "grey"},
            {"id": 2, "image_id": 8, "caption": "lost"},
        ],
    }
    (tmp_path / "captions.json").write_text(json.dumps(content))
    (sample,) = prepared(tmp_path / "captions.json", tmp_path / "out")
    assert (answer(sample), sample.kind) == ("grey", "caption/coco")
    assert rejects(tmp_path / "out") == {"annotation 2": "missing"}


def test_a_folder_of_images_and_a_limit(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "cats").mkdir(parents=True)
    for number in range(3):
        (folder / f"cats/{number}.jpg").write_bytes(jpeg(number))
    made = prepared(folder, tmp_path / "out", FileOptions(held_out=0.0, limit=2, max_side=16))
    assert [(s.id, s.kind, s.turns) for s in made] == [
        ("cats/0.jpg", "image/cats", []),
        ("cats/1.jpg", "image/cats", []),
    ]
    assert {max(s.images[0].height, s.images[0].width) for s in made} == {16}


def test_plain_text_is_cut_into_pieces(tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text("One sentence. " * 300)
    made = prepared(tmp_path / "book.txt", tmp_path / "out")
    assert len(made) == 3
    assert "".join(answer(s).replace(" ", "") for s in made) == "Onesentence." * 300
    assert {turn["role"] for s in made for turn in s.turns} == {"text"}


def test_images_are_held_out_whole(tmp_path: Path) -> None:
    llava(tmp_path)
    source = source_at(tmp_path / "talk.json", FileOptions(held_out=0.5))
    splits = source.splits()
    images = {
        name: {str(entry.get("image")) for _, entry in entries if isinstance(entry, dict)}
        for name, entries in splits.items()
    }
    assert images["train"] & images["val"] <= {"None"}
    assert sum(map(len, splits.values())) == 8


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", b"\xff", "no JSON that is known"),
        ("a.json", b"[1, 2", "no JSON in UTF-8"),
        ("a.json", b'{"x": 1}', "captions as COCO writes them"),
        ("a.parquet", b"PAR1", "no Parquet file"),
        ("a.bin", b"", "of no known type"),
        ("a.tar", b"\x1f\x8b0000", "compressed"),
    ],
)
def test_a_source_that_is_none_says_so(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        source_at(tmp_path / name, ALL).splits()
