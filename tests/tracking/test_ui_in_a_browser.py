"""The real UI over a real store, in headless Chromium: `docs/make_screenshots.py` looks at it.

`LIT_EVE_UI_STORE=mlflow.db` shows an existing store instead of a small new one, and
`LIT_EVE_UI_PICTURES=folder` keeps the pictures.
"""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lit_eve.tracking import media
from lit_eve.tracking.pictures import Answer, answer_grid
from lit_eve.tracking.runs import objective
from lit_eve.tracking.searches import SEARCH_FOLDER, TrialCard
from lit_eve.tracking.shipper import sync
from lit_eve.tracking.spool import Spool
from lit_eve.tracking.views import KIND_TAG

ROOT = Path(__file__).parents[2]
PAGES = {"experiments", "runs", "run", "stage", "curves", "charts", "pictures", "answers"}
PAGES |= {"search", "search_report", "search_trials", "comparison"}
CHROMIUM = os.environ.get("CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


def small_run(run: Path, rate: float) -> None:
    own = Spool(run / "tracking")
    own.status("RUNNING")
    own.params({"train.language_model": rate})
    own.tags(objective("val/read", "maximize"))
    own.note("**99 %** of digits read.")
    stage = Spool(run / "learn" / "tracking", tags={"mlflow.runName": f"learn · {run.name}"})
    stage.status("RUNNING")
    shade = np.linspace(0, 1, 32 * 48 * 3).reshape(32, 48, 3)
    for step in range(0, 401, 20):
        share = 1 - math.exp(-step * rate)
        stage.metrics({"train/loss": 1 - share, "val/read": share, "perf/rate": 9.0}, step)
        if step % 100 == 0:
            answers = [Answer(shade, "Which digit?", "7", str(n), n == 7) for n in range(4, 8)]
            media.log_images(stage, "val/answers", step, [answer_grid(answers)])
            rows = [
                {"picture": a.picture, "question": a.question, "expected": "7", "given": a.given}
                for a in answers
            ]
            media.log_table(stage, "answers", step, rows)
    for spool in (stage, own):
        spool.metrics({"test/read": 0.99}, 400)
        spool.status("FINISHED")
        spool.close()


def small_search(root: Path) -> Path:
    """A search of three trials, with a report; its own folder."""
    folder = root / SEARCH_FOLDER
    own = Spool(folder / "tracking", tags={KIND_TAG: "search"} | objective("val/read", "maximize"))
    (folder / "report.html").write_text('<svg width="400" height="300"><circle r="99"/></svg>')
    own.artifact(folder / "report.html")
    own.status("FINISHED")
    for number, rate in enumerate((0.01, 0.02, 0.04)):
        trial = root / f"trial-{number:03d}"
        card = TrialCard(number, f"t{number}", objective="maximize val/read")
        trial.mkdir()
        card.write(trial)
        spool = Spool(trial / "tracking", tags=card.tags | {"mlflow.runName": card.name})
        spool.params({"train.language_model": rate, "seed": number})
        spool.metrics({"val/read": 1 - rate}, 400)
        spool.status("FINISHED")
    return folder


@pytest.fixture
def database(tmp_path: Path, uri: str) -> Path:
    if existing := os.environ.get("LIT_EVE_UI_STORE"):
        return Path(existing).resolve()
    for name, rate in (("brisk-otter", 0.01), ("calm-heron", 0.02)):
        run = tmp_path / "runs" / "digits" / name
        small_run(run, rate)
        sync(run, uri)
    sync(small_search(tmp_path / "runs" / "tuned"), uri)
    return tmp_path / "store" / "mlflow.db"


@pytest.mark.slow
@pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium here: install it, or name its executable in CHROMIUM"
)
def test_what_a_reader_looks_for_is_visible(tmp_path: Path, database: Path) -> None:
    pytest.importorskip("playwright")
    out = Path(os.environ.get("LIT_EVE_UI_PICTURES", tmp_path / "pictures"))
    program = [sys.executable, "docs/make_screenshots.py", str(database), str(out)]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    assert {path.stem for path in out.glob("*.png")} >= PAGES
    for page in PAGES:
        with Image.open(out / f"{page}.png") as image:
            assert image.size == (1600, 1000)
            assert len(image.convert("RGB").getcolors(2**24) or []) > 100, f"{page} is blank"
