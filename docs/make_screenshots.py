"""Look at a tracking store in the MLflow UI with headless Chromium, and keep what was seen.

Run:  uv run python docs/make_screenshots.py mlflow.db docs/images [--experiment quickstart]

It starts the server as `lit-eve ui` does, opens the pages that `docs/mlflow.md` and
`docs/search.md` show, checks that what a reader looks for is visible there, and saves one picture a
page: of the newest run of the experiment that has pictures, and of its search, if it has one. Needs
Chromium; `CHROMIUM` names its executable.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from mlflow.entities import Run
from playwright.sync_api import Locator, Page, ViewportSize, expect, sync_playwright

from lit_eve.tracking.delivery import PARENT_TAG, STAGE_TAG
from lit_eve.tracking.runs import OBJECTIVE_TAG
from lit_eve.tracking.server import running
from lit_eve.tracking.store import connect, locate
from lit_eve.tracking.ui import experiment_link, home_link, run_link, search_link, stage_link
from lit_eve.tracking.views import KIND_TAG

SIZE = ViewportSize(width=1600, height=1000)
PATIENCE_MS = 60_000
COMPARED = 3
"""Trials of a search that are put beside each other."""
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# A fresh browser opens MLflow's assistant over a third of the page.
CLOSED_ASSISTANT = """
localStorage.setItem("mlflow.assistant.panelOpen_v1", "false");
localStorage.setItem("mlflow.assistant.fab.autoOpenedOnFirstLoad_v1", "true");
"""
HIDDEN = "[data-assistant-ui] { display: none !important; }"


@dataclass
class Subject:
    """The run to be shown, and its stage that has pictures."""

    experiment: str
    experiment_id: str
    run: Run
    stage: Run
    picture: str
    step: int

    @property
    def stage_name(self) -> str:
        """The stage's name in the experiment file."""
        return str(self.stage.data.tags[STAGE_TAG])


@dataclass
class SearchSubject:
    """The search to be shown, and its trials that have a score, the best first."""

    experiment_id: str
    search: Run
    trials: list[Run]


def chromium() -> str | None:
    """Chromium's executable, None if there is none."""
    named = os.environ.get("CHROMIUM")
    names = ("chromium", "chromium-browser", "google-chrome")
    return named or next((found for name in names if (found := shutil.which(name))), None)


def choose_search(database: Path, experiment: str | None) -> SearchSubject | None:
    """The search of the experiment (the newest that there is if None)."""
    client = connect(locate(f"sqlite:///{database}"))
    for found in client.search_experiments(order_by=["last_update_time DESC"]):
        if experiment not in (None, found.name):
            continue
        here = [found.experiment_id]
        for run in client.search_runs(here, f"tags.`{KIND_TAG}` = 'search'"):
            direction, _, metric = run.data.tags[OBJECTIVE_TAG].partition(" ")
            order = f"metrics.`{metric}` {'ASC' if direction == 'minimize' else 'DESC'}"
            trials = client.search_runs(here, f"tags.`{KIND_TAG}` = 'trial'", order_by=[order])
            scored = [trial for trial in trials if metric in trial.data.metrics]
            return SearchSubject(found.experiment_id, run, scored)
    return None


def choose(database: Path, experiment: str | None) -> Subject | None:
    """The newest run of the experiment (of the newest experiment if None) that has pictures."""
    client = connect(locate(f"sqlite:///{database}"))
    known = client.search_experiments(order_by=["last_update_time DESC"])
    for found in known:
        if experiment not in (None, found.name):
            continue
        for run in client.search_runs([found.experiment_id], f"tags.`{KIND_TAG}` = 'run'"):
            below = f"tags.`{PARENT_TAG}` = '{run.info.run_id}'"
            for stage in client.search_runs([found.experiment_id], below):
                names = [
                    Path(f.path).name for f in client.list_artifacts(stage.info.run_id, "images")
                ]
                steps = [(int(name.split("+")[2]), name.split("+")[0]) for name in names]
                if steps:
                    step, key = max(steps)
                    picture = key.replace("~", "/")
                    return Subject(found.name, found.experiment_id, run, stage, picture, step)
    return None


class Walk:
    """Opens pages, looks for what has to be there, and saves pictures."""

    def __init__(self, page: Page, url: str, out: Path) -> None:
        self.page, self.url, self.out = page, url, out

    def _open(self, link: str) -> None:
        self.page.goto("about:blank")  # links differ behind the # only: load each one anew
        self.page.goto(link)
        self.page.add_style_tag(content=HIDDEN)

    def _hide_path(self) -> None:
        """Whose machine it was is nobody's business."""
        for line in self.page.get_by_text(re.compile("^Path: file:")).all():
            line.evaluate("element => { element.style.visibility = 'hidden' }")

    def _see(self, text: str) -> None:
        expect(self.page.get_by_text(text).first).to_be_visible(timeout=PATIENCE_MS)

    def _keep(self, name: str) -> None:
        """Save the page once it has stopped changing: charts are drawn after their data came."""
        before, now = b"", self.page.screenshot()
        for _ in range(20):
            if now == before:
                break
            self.page.wait_for_timeout(800)
            before, now = now, self.page.screenshot()
        (self.out / f"{name}.png").write_bytes(now)
        print(self.out / f"{name}.png")


class Tour(Walk):
    """Walks through the pages of one run; every method checks and saves one."""

    def __init__(self, page: Page, url: str, subject: Subject, out: Path) -> None:
        super().__init__(page, url, out)
        self.subject = subject

    def all(self) -> None:
        """Every page."""
        self.experiments()
        self.runs()
        self.overview()
        self.stage()
        self.charts()
        self.pictures()
        self.answers()

    def experiments(self) -> None:
        """The list of experiments."""
        self._open(home_link(self.url))
        self._see(self.subject.experiment)
        self._keep("experiments")

    def runs(self) -> None:
        """The experiment's runs, with scores and parameters as columns."""
        self._open(experiment_link(self.url, self.subject.experiment_id))
        self._see("Runs and scores")
        self._see(str(self.subject.run.info.run_name))
        for column in list(self.subject.run.data.params)[:1]:
            self._see(column)
        self._keep("runs")

    def stage(self) -> None:
        """One stage of all runs: pictures at their newest step, then curves."""
        self._open(stage_link(self.url, self.subject.experiment_id, self.subject.stage_name))
        self._see_section("pictures")
        self._see_section("val")
        self._see_picture(self.subject.step)
        self._keep("stage")
        self._section("val").scroll_into_view_if_needed()
        self.page.mouse.move(SIZE["width"] * 0.7, SIZE["height"] * 0.7)
        self.page.mouse.wheel(0, 520)
        self.page.mouse.move(5, 5)  # a chart below the pointer shows its tools
        self._keep("curves")

    def overview(self) -> None:
        """The run: description, parameters, data, stages."""
        self._open(run_link(self.url, self.subject.experiment_id, self.subject.run.info.run_id))
        self._see(str(self.subject.run.info.run_name))
        self._see("Child runs")
        self._keep("run")

    def charts(self) -> None:
        """A stage's charts, grouped by what stands before the slash."""
        self._open_stage("model-metrics")
        for group in sorted({key.rpartition("/")[0] for key in self.subject.stage.data.metrics})[
            :2
        ]:
            self._see_section(group)
        self._keep("charts")

    def pictures(self) -> None:
        """The picture card of a stage, its slider moved from the first to the newest step."""
        self._open_stage("model-metrics")
        self.page.get_by_placeholder("Search metric charts").fill(self.subject.picture)
        steps = self.page.get_by_role("spinbutton")
        steps.first.wait_for(timeout=PATIENCE_MS)
        for box in steps.all():
            box.fill(str(self.subject.step))
            box.press("Enter")
            box.press("Tab")
        self._see_picture(self.subject.step)
        self._enlarge()
        self._keep("pictures")

    def answers(self) -> None:
        """The table of questions with picture, expected and given answer."""
        self._open_stage("artifacts")
        self.page.get_by_text("answers.json", exact=True).first.click()
        for column in ("expected", "given"):
            self._see(column)
        self._see_picture()
        self._hide_path()
        self._keep("answers")

    def _enlarge(self) -> None:
        """Pull the first card's corner, as a reader would who wants to see more."""
        card = self.page.get_by_test_id("experiment-view-compare-runs-card").first.bounding_box()
        assert card is not None
        x, y = card["x"] + card["width"] - 10, card["y"] + card["height"] - 10
        self.page.mouse.move(x, y)
        self.page.mouse.down()
        self.page.mouse.move(x + 300, y + 440, steps=20)
        self.page.mouse.up()
        self.page.mouse.move(5, 5)

    def _open_stage(self, page: str) -> None:
        run_id = self.subject.stage.info.run_id
        self._open(run_link(self.url, self.subject.experiment_id, run_id, page))

    def _see_section(self, name: str) -> None:
        expect(self._section(name)).to_be_visible(timeout=PATIENCE_MS)

    def _section(self, name: str) -> Locator:
        """The header of a group of charts, which counts them."""
        headers = self.page.get_by_role("figure")
        return headers.filter(has_text=re.compile(rf"^{name}\s*\(\d")).first

    def _see_picture(self, step: int | None = None) -> None:
        """At least one of the run's pictures, of that step, is loaded and drawn."""
        part = "get-artifact" if step is None else f"%2Bstep%2B{step}%2B"
        drawn = (
            f"() => [...document.images].some(image => image.src.includes('{part}')"
            " && image.complete && image.naturalWidth > 0)"
        )
        self.page.wait_for_function(drawn, timeout=PATIENCE_MS)


class SearchTour(Walk):
    """Walks through the pages of one search."""

    def __init__(self, page: Page, url: str, subject: SearchSubject, out: Path) -> None:
        super().__init__(page, url, out)
        self.subject = subject

    def all(self) -> None:
        """Every page."""
        self.overview()
        self.report()
        self.trials()
        if len(self.subject.trials) >= COMPARED:
            self.comparison()

    def overview(self) -> None:
        """The search's own run: its verdict, the best trials, its child runs."""
        search = self.subject.search.info
        self._open(run_link(self.url, self.subject.experiment_id, search.run_id))
        self._see("Child runs")
        self._keep("search")

    def report(self) -> None:
        """The report among the artifacts, drawn without a network."""
        search = self.subject.search.info
        self._open(run_link(self.url, self.subject.experiment_id, search.run_id, "artifacts"))
        self.page.get_by_text("report.html", exact=True).first.click()
        frame = self.page.frame_locator("iframe").first
        expect(frame.locator("svg").first).to_be_visible(timeout=PATIENCE_MS)
        self._hide_path()
        self._keep("search_report")

    def trials(self) -> None:
        """The saved view: parallel coordinates, bars, a scatter per parameter."""
        self._open(search_link(self.url, self.subject.experiment_id))
        self._see("Search: settings and scores")
        self._see("Parallel Coordinates")
        self._keep("search_trials")

    def comparison(self) -> None:
        """The best trials beside each other."""
        runs = json.dumps([trial.info.run_id for trial in self.subject.trials[:COMPARED]])
        where = f"runs={quote(runs)}&experiments={quote(json.dumps([self.subject.experiment_id]))}"
        self._open(f"{self.url}/#/compare-runs?{where}&workflowType=machine_learning")
        self._see(f"Comparing {COMPARED} Runs")
        self._keep("comparison")


def main() -> None:
    """Take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store", type=Path, help="the database, mlflow.db")
    parser.add_argument("out", type=Path, help="folder of the pictures")
    parser.add_argument("--experiment", help="by default the one changed last")
    options = parser.parse_args()
    executable = chromium()
    if executable is None:
        sys.exit("no Chromium here: install it, or name it in CHROMIUM.")
    database = options.store.resolve()
    subject = choose(database, options.experiment)
    search = choose_search(database, options.experiment)
    if subject is None and search is None:
        sys.exit(f"{database} holds no run with pictures, and no search.")
    options.out.mkdir(parents=True, exist_ok=True)
    with (
        running(locate(f"sqlite:///{database}"), port=5400) as server,
        tempfile.TemporaryDirectory() as profile,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch_persistent_context(
            profile, executable_path=executable, headless=True, args=FLAGS, viewport=SIZE
        )
        browser.add_init_script(CLOSED_ASSISTANT)
        page = browser.pages[0]
        if subject is not None:
            Tour(page, server.url, subject, options.out).all()
        if search is not None:
            SearchTour(page, server.url, search, options.out).all()
        browser.close()


if __name__ == "__main__":
    main()
