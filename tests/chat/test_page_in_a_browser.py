"""The chat page in headless Chromium: `docs/make_chat_screenshot.py` talks with a small run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.inference.tiny import write_picture

ROOT = Path(__file__).parents[2]
CHROMIUM = os.environ.get("CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


@pytest.mark.slow
@pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium here: install it, or name its executable in CHROMIUM"
)
def test_a_visitor_shows_a_picture_asks_and_is_answered(tiny_run: Path, tmp_path: Path) -> None:
    pytest.importorskip("playwright")
    pytest.importorskip("gradio", reason="Gradio is not installed: extra `web`")
    picture = write_picture(tmp_path / "seen.png", 48, 64)
    out = tmp_path / "chat.png"
    program = [sys.executable, "docs/make_chat_screenshot.py", str(tiny_run), str(picture)]
    done = subprocess.run(
        [*program, str(out), "--question", "What is it?"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    with Image.open(out) as image:
        assert image.size == (1280, 800)
        assert len(image.convert("RGB").getcolors(2**24) or []) > 100, "the page is blank"
