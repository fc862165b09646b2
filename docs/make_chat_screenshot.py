"""Talk with a run on the chat page in headless Chromium, and keep what was seen.

Run:  uv run python docs/make_chat_screenshot.py RUN PICTURE docs/images/chat.png [--question Q]

It serves the page as `lit-eve chat RUN --web` does, uploads the picture, asks, waits for the whole
answer, checks that a file which is no picture is refused and that nothing but the page's own folder
was written to, and saves the page. Needs Chromium; `CHROMIUM` names its executable.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Page as Browser
from playwright.sync_api import ViewportSize, expect, sync_playwright

from lit_eve.chat.page import Page, serving
from lit_eve.inference.assistant import Decoding
from lit_eve.inference.opening import open_assistant
from lit_eve.running.directory import find

SIZE = ViewportSize(width=1280, height=800)
PATIENCE_MS = 60_000
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def chromium() -> str | None:
    """Chromium's executable, None if there is none."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next((path for name in names if (path := shutil.which(name))), None)
    return os.environ.get("CHROMIUM") or found


def talk(page: Browser, picture: Path, question: str) -> None:
    """Upload and ask; every step waits for what a visitor would see."""
    upload = page.locator("input[type=file]").first
    upload.set_input_files(picture)
    expect(page.get_by_text("visual tokens", exact=False).last).to_be_visible(timeout=PATIENCE_MS)
    page.wait_for_function(
        "() => [...document.images].some(i => i.complete && i.naturalWidth > 100)",
        timeout=PATIENCE_MS,
    )
    box = page.get_by_label("Question")
    box.fill(question)
    box.press("Enter")
    expect(page.locator("[data-testid=bot]").first).to_be_visible(timeout=PATIENCE_MS)
    expect(page.locator("[data-testid=user]").first).to_contain_text(question)
    expect(box).to_have_value("", timeout=PATIENCE_MS)
    page.wait_for_timeout(1500)  # the answer's last words


def refused(page: Browser, wrong: Path) -> None:
    """A file that only calls itself a picture is told to be none."""
    page.get_by_label("Remove this file", exact=False).or_(page.get_by_label("Clear")).first.click()
    page.locator("input[type=file]").first.set_input_files(wrong)
    expect(page.get_by_text("is no picture", exact=False).first).to_be_visible(timeout=PATIENCE_MS)


def main() -> None:
    """Take the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", help="the run's folder")
    parser.add_argument("picture", type=Path)
    parser.add_argument("out", type=Path, help="file of the screenshot")
    parser.add_argument("--question", default="Read the digits.")
    options = parser.parse_args()
    executable = chromium()
    if executable is None:
        sys.exit("no Chromium here: install it, or name it in CHROMIUM.")
    assistant = open_assistant(find(options.run, Path("runs")))
    folders: list[Path] = []

    def made(folder: Path) -> Page:
        folders.append(folder)
        return Page(assistant, Decoding(16), folder)

    with tempfile.TemporaryDirectory() as place, sync_playwright() as playwright:
        wrong = Path(place) / "page.png"
        wrong.write_text("<svg onload='alert(1)'/>")
        with serving(made, "lit-eve") as url:
            browser = playwright.chromium.launch_persistent_context(
                Path(place) / "profile",
                executable_path=executable,
                headless=True,
                args=FLAGS,
                viewport=SIZE,
            )
            page = browser.pages[0]
            page.goto(url, timeout=PATIENCE_MS)
            talk(page, options.picture, options.question)
            options.out.parent.mkdir(parents=True, exist_ok=True)
            page.screenshot(path=options.out)
            refused(page, wrong)
            kept = [path for path in folders[0].rglob("*") if path.is_file()]
            browser.close()
    if not kept or folders[0].exists():
        sys.exit(f"uploads were not kept in the page's folder and deleted: {kept}")
    print(options.out)


if __name__ == "__main__":
    main()
