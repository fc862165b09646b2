"""`lit-eve ui`: the MLflow UI on the right store, with links that open training runs.

MLflow 3 opens in a mode for chat traces, where training runs are not visible; a part of the link
chooses the other mode.
"""

from __future__ import annotations

import threading
import webbrowser
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from lit_eve.tracking.delivery import recall
from lit_eve.tracking.liveness import tracking_folder
from lit_eve.tracking.server import Experiment, experiments, running
from lit_eve.tracking.store import Store, locate
from lit_eve.tracking.views import RUNS_VIEW, SEARCH_VIEW, TAG, stage_view

_MODE = "workflowType=machine_learning"


def home_link(url: str) -> str:
    """The list of experiments."""
    return f"{url}/#/experiments?{_MODE}"


def experiment_link(url: str, experiment_id: str, view: str | None = RUNS_VIEW) -> str:
    """The runs of an experiment: with their scores, where it has our saved view."""
    shared = f"&viewStateShareKey={quote(view)}" if view else ""
    return f"{url}/#/experiments/{experiment_id}/runs?{_MODE}{shared}"


def stage_link(url: str, experiment_id: str, stage: str) -> str:
    """One stage of all runs side by side: pictures and curves, in our saved view."""
    return experiment_link(url, experiment_id, stage_view(stage)) + "&compareRunsMode=CHART"


def search_link(url: str, experiment_id: str) -> str:
    """The trials of a search: settings against scores, in our saved view."""
    return experiment_link(url, experiment_id, SEARCH_VIEW) + "&compareRunsMode=CHART"


def run_link(url: str, experiment_id: str, run_id: str, page: str = "") -> str:
    """One run; `page` is empty for its overview, `model-metrics`, or `artifacts`."""
    path = f"{run_id}/{page}".rstrip("/")
    return f"{url}/#/experiments/{experiment_id}/runs/{path}?{_MODE}"


def link_of(run_directory: Path, store: Store, url: str) -> str | None:
    """The link of a run directory's run, None while the store does not know it."""
    shipped = recall(tracking_folder(Path(run_directory)), store)
    if not shipped.run_id:
        return None
    return run_link(url, shipped.experiment_id, shipped.run_id)


def serve(
    uri: str,
    port: int = 5000,
    open_browser: bool = True,
    *,
    base: Path | None = None,
    say: Callable[[str], None] = print,
    stop: threading.Event | None = None,
) -> None:
    """Serve the store until Ctrl-C; a server that already runs is only pointed to.

    Args:
        uri: the store, as the experiment file names it.
        port: the first port to try.
        open_browser: whether to open the list of experiments.
        base: what a relative sqlite path starts from, by default the current directory.
        say: gets the lines for the user.
        stop: ends the serving when set, instead of Ctrl-C.

    Raises:
        StoreError: if MLflow could not use the address.
        ServerError: if no server answers in the end.
    """
    store = locate(uri, base)
    say(f"MLflow on {store.shown} ...")
    with running(store, port) as server:
        say(f"  experiments  {home_link(server.url)}")
        links = {found.name: _link(server.url, found) for found in experiments(server.url)[:10]}
        width = max(map(len, links), default=0)
        for name, link in links.items():
            say(f"  {name:<{width}}  {link}")
        if open_browser:
            webbrowser.open(next(iter(links.values()), home_link(server.url)))
        if server.found:
            say("It was running already, so it stays.")
            return
        say("Ctrl-C ends it.")
        try:
            (stop or threading.Event()).wait()
        except KeyboardInterrupt:
            say("The server ends.")


def _link(url: str, experiment: Experiment) -> str:
    if TAG + SEARCH_VIEW in experiment.tags:
        return search_link(url, experiment.id)
    ours = TAG + RUNS_VIEW in experiment.tags
    return experiment_link(url, experiment.id, RUNS_VIEW if ours else None)
