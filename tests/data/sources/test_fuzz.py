"""Inputs mutated at random through the whole of `prepare`: whatever comes, it is used or refused.

`LIT_EVE_FUZZ=1000 uv run pytest tests/data/sources/test_fuzz.py` tries a thousand.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as arrow  # type: ignore[import-untyped]
import pytest
from PIL import Image
from pyarrow import parquet

from lit_eve_data.disk.manifest import verify
from lit_eve_data.disk.reading import RecordStore
from lit_eve_data.disk.records import BadSampleError
from lit_eve_data.preparing.writing import WritingOptions, write_dataset
from lit_eve_data.sources import FILE_TYPES, FileOptions, source_at

CASES = int(os.environ.get("LIT_EVE_FUZZ", "18"))
SIDES = (24, 40)
FORMS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP")
HOSTILE: tuple[Any, ...] = (
    *("../../etc/passwd", "/etc/passwd", "a\0b", "x" * 5000, "..\\x.jpg", "\ud800", ".", "", "~"),
    *(None, True, -1, 1e308, [], {}, [[[]]], {"a": {"b": []}}, "<image>" * 50, ["0.jpg"] * 30),
)


def pictures() -> list[bytes]:
    """Six small pictures, each in a format of its own and of a colour that tells its number."""
    made = []
    for number, form in enumerate(FORMS):
        content = io.BytesIO()
        pixels = np.random.default_rng(number).integers(0, 9, (*SIDES, 3), np.uint8) + 40 * number
        Image.fromarray(pixels.astype(np.uint8)).save(content, form)
        made.append(content.getvalue())
    return made


def mutated(data: bytes, random: Random) -> bytes:
    """Cut, flipped, doubled, emptied or overwritten somewhere."""
    content = bytearray(data)
    for _ in range(random.choice((1, 1, 1, 4))):
        place = random.randrange(len(content) or 1)
        span = random.choice((1, 7, 300))
        match random.randrange(6):
            case 0:
                del content[place:]
            case 1:
                for _ in range(span):
                    if content:
                        content[random.randrange(len(content))] ^= 1 << random.randrange(8)
            case 2:
                content[place:place] = content[place : place + span]
            case 3:
                del content[place : place + span]
            case 4:
                content[place : place + span] = bytes(span)
            case _:
                content[place : place + 4] = random.randbytes(4)
    return bytes(content)


def rewritten(content: Any, random: Random) -> Any:
    """JSON with one of its values replaced by something hostile."""
    if random.random() < 0.15 or not isinstance(content, list | dict) or not content:
        return random.choice(HOSTILE)
    if isinstance(content, list):
        place = random.randrange(len(content))
        return [*content[:place], rewritten(content[place], random), *content[place + 1 :]]
    key = random.choice(list(content))
    return {**content, key: rewritten(content[key], random)}


def entry(number: int) -> dict[str, Any]:
    return {
        "id": number,
        "image": f"{number}.jpg",
        "conversations": [
            {"from": "human", "value": "<image>\nWhich?"},
            {"from": "gpt", "value": f"answer {number}"},
        ],
    }


def llava(folder: Path, files: list[bytes], change: Callable[[Any], Any]) -> Path:
    for number, data in enumerate(files):
        (folder / f"{number}.jpg").write_bytes(data)
    (folder / "a.json").write_text(json.dumps(change([entry(n) for n in range(len(files))])))
    return folder / "a.json"


def coco(folder: Path, files: list[bytes], change: Callable[[Any], Any]) -> Path:
    llava(folder, files, change)
    content = {
        "images": [{"id": n, "file_name": f"{n}.jpg"} for n in range(len(files))],
        "annotations": [{"image_id": n, "caption": f"answer {n}"} for n in range(len(files))],
    }
    (folder / "a.json").write_text(json.dumps(change(content)))
    return folder / "a.json"


def webdataset(folder: Path, files: list[bytes], change: Callable[[Any], Any]) -> Path:
    with tarfile.open(folder / "a.tar", "w") as archive:
        for number, data in enumerate(files):
            talk = json.dumps(change(entry(number))).encode()
            for name, content in ((f"{number}.jpg", data), (f"{number}.json", talk)):
                named = change([name])
                called = str(named[0]) if isinstance(named, list) and named else ""
                about = tarfile.TarInfo(called.encode("utf-8", "replace").decode())
                about.size = len(content)
                archive.addfile(about, io.BytesIO(content))
    return folder / "a.tar"


def table(folder: Path, files: list[bytes], change: Callable[[Any], Any]) -> Path:
    rows = []
    for number, data in enumerate(files):
        said = change([f"answer {number}"])
        words = said[0] if isinstance(said, list) and said else said
        words = None if words is None else str(words).encode("utf-8", "replace").decode()
        rows.append({"image": {"bytes": data, "path": None}, "caption": words})
    parquet.write_table(arrow.Table.from_pylist(rows), folder / "a.parquet", row_group_size=3)
    return folder / "a.parquet"


def folder_of(folder: Path, files: list[bytes], change: Callable[[Any], Any]) -> Path:
    llava(folder, files, change)
    (folder / "a.json").unlink()
    return folder


def text(folder: Path, files: list[bytes], change: Callable[[Any], Any]) -> Path:
    lines = [json.dumps(change({"text": f"answer {n}"})) for n in range(len(files))]
    (folder / "a.jsonl").write_text("\n".join(lines))
    return folder / "a.jsonl"


MAKERS = dict(
    zip(FILE_TYPES, (llava, coco, webdataset, table, folder_of, text), strict=True),
)


def outcome(case: int, folder: Path) -> Counter[str]:
    """What came of one mutated source: samples used, rejects by reason, or the source refused."""
    random = Random(case)
    kind = FILE_TYPES[case % len(FILE_TYPES)]
    files, what = pictures(), random.choice(("picture", "content", "container", "none"))
    good = {data: f"answer {number}" for number, data in enumerate(files)}
    if what == "picture":
        place = random.randrange(len(files))
        files[place] = mutated(files[place], random)

    def change(content: Any) -> Any:
        return (
            rewritten(content, random) if what == "content" and random.random() < 0.5 else content
        )

    (folder / "in").mkdir(parents=True)
    address = MAKERS[kind](folder / "in", files, change)
    if what == "container" and address.is_file():
        address.write_bytes(mutated(address.read_bytes(), random))
    options = FileOptions(held_out=random.choice((0.0, 0.3)), max_side=random.choice((None, 32)))
    try:
        source = source_at(address, options, kind)
        write_dataset(source, folder / "out", WritingOptions(0, max_rejects=1.0))
    except ValueError as error:
        return Counter({"source refused" if len(str(error)) > 20 else "refused, no reason": 1})
    return checked(folder / "out", good)


def checked(directory: Path, good: dict[bytes, str]) -> Counter[str]:
    """What a dataset holds; its words and pictures belong together."""
    found: Counter[str] = Counter()
    for name, split in verify(directory).splits.items():
        store = RecordStore(directory, name)
        for sample in (store[n] for n in range(len(store))):
            for image in sample.images:
                try:
                    assert image.pixels().shape == (image.height, image.width, 3)
                except BadSampleError:
                    found["used, but broken inside"] += 1
                said = sample.turns[-1]["content"] if sample.turns else ""
                if image.data in good and said.startswith("answer"):
                    assert said.startswith(good[image.data])
            found["used"] += 1
        listed = directory / name / "rejects.jsonl"
        lines = listed.read_text().splitlines() if listed.exists() else []
        for line in map(json.loads, lines):
            assert line["reason"]
            assert line["message"]
            found[line["reason"]] += 1
        assert Counter(split.rejects) == Counter(json.loads(line)["reason"] for line in lines)
    return found


@pytest.mark.timeout(20 + CASES)
def test_whatever_comes_is_used_or_refused_with_a_reason(tmp_path: Path) -> None:
    total: Counter[str] = Counter()
    for case in range(CASES):
        total += outcome(case, tmp_path / str(case))
    print(*(f"{count:>7}  {what}" for what, count in total.most_common()), sep="\n")
    assert total["used"] > CASES
    assert total["refused, no reason"] == 0
    assert total["used, but broken inside"] == 0
    assert total["error"] <= CASES // 20  # what no check of ours names should be rare
