"""From somebody's files to a dataset one can look at, by the command line's own words."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from lit_eve.cli import app
from lit_eve.tracking.spool import EVENTS_FILE, read_events
from lit_eve_data.disk.reading import RecordStore
from tests.files import QUICKSTART


def source(folder: Path) -> Path:
    """Six questions, one of them about a picture that is not there."""
    folder.mkdir()
    entries = []
    for number in range(6):
        name = f"{number}.png"
        if number != 3:
            Image.fromarray(np.full((24, 40, 3), number, np.uint8)).save(folder / name)
        talk = [
            {"from": "human", "value": "<image>\n<b>Which?"},
            {"from": "gpt", "value": str(number)},
        ]
        entries.append({"id": number, "image": name, "conversations": talk})
    (folder / "talk.json").write_text(json.dumps(entries))
    return folder / "talk.json"


def test_files_become_a_dataset_that_is_counted_shown_and_verified(tmp_path: Path) -> None:
    talk, to, page = source(tmp_path / "in"), tmp_path / "out", tmp_path / "page.html"
    call = ["prepare", str(talk), "--to", str(to), "--workers", "0"]
    made = CliRunner().invoke(app, [*call, "--max-rejects", "20%", "--held-out", "0"])
    assert made.exit_code == 0, made.output
    assert "5 samples, 5 images" in made.output
    assert "1  rejected: missing" in made.output
    store = RecordStore(to)
    assert {store[n].turns[1]["content"] for n in range(5)} == {"0", "1", "2", "4", "5"}
    shown = CliRunner().invoke(app, ["data", "inspect", str(to), "--page", str(page)])
    assert "longer side in pixels: median 40" in shown.output
    assert page.read_text().count("<img ") == 5
    assert "<b>Which" not in page.read_text()  # words of strangers are never markup
    assert "as they were prepared" in CliRunner().invoke(app, ["data", "verify", str(to)]).output
    chunk = to / "train/chunk-0-0.bin"
    chunk.write_bytes(chunk.read_bytes()[:-1] + b"?")
    broken = CliRunner().invoke(app, ["data", "verify", str(to)])
    assert "changed since being prepared" in str(broken.exception)


@pytest.mark.parametrize("share", ["two", "200%", "-1"])
def test_a_share_that_is_none_says_how_to_write_it(tmp_path: Path, share: str) -> None:
    call = ["prepare", str(tmp_path), "--to", str(tmp_path / "x"), "--held-out", share]
    assert "write a share such as 1%" in str(CliRunner().invoke(app, call).exception)


def test_a_stage_shows_the_batch_that_a_run_began_with(
    tiny_run: Path, datasets: Path, tmp_path: Path
) -> None:
    recorded = tiny_run / "glimpse/tracking"
    drawn = [e for e, _ in read_events(recorded / EVENTS_FILE) if e["k"] == "image"]
    (left,) = [recorded / event["path"] for event in drawn if event["key"] == "train/batch"]
    to = tmp_path / "batch.png"
    call = ["data", "show", str(QUICKSTART), "--tiny", "--data", str(datasets), "--to", str(to)]
    wrong = CliRunner().invoke(app, [*call, "--stage", "learn"])
    assert "no stage 'learn' trains" in str(wrong.exception)
    shown = CliRunner().invoke(app, [*call, "--stage", "glimpse"])
    assert "the first batch of glimpse" in shown.output
    with Image.open(to) as one, Image.open(left) as other:
        assert one.size == other.size
        assert one.tobytes() == other.tobytes()
