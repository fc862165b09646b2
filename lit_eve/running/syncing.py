"""Runs that the tracker does not know all of yet, and where each belongs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lit_eve.running.directory import EXPERIMENT_FILE, find
from lit_eve.tracking.liveness import mark_crashed, tracking_folder
from lit_eve.tracking.searches import SEARCH_FOLDER, card_of, family
from lit_eve.tracking.spool import EVENTS_FILE


def target(run: str, root: Path) -> Path:
    """The directory that a user means: a run's, or a search's, which stands for its trials.

    Args:
        run: as `directory.find` takes it, or the name or folder of a search.
        root: of all runs.

    Raises:
        ValueError: if nothing, or more than one run, fits.
    """
    for folder in (Path(run), Path(run) / SEARCH_FOLDER, root / run / SEARCH_FOLDER):
        if folder.name == SEARCH_FOLDER and _recorded(folder):
            return folder.absolute()
    return find(run, root).path


def store_of(run_directory: Path) -> str | None:
    """The store that a run's experiment names; None if it says `tracking: {type: none}`."""
    from lit_eve.schema import load
    from lit_eve.schema.running import MLflowTracking

    for member in family(run_directory):
        file = member / EXPERIMENT_FILE
        if file.is_file():
            tracking = load(file).tracking
            return tracking.uri.resolved() if isinstance(tracking, MLflowTracking) else None
    return None


def unsent(root: Path, uri: str | None = None) -> Iterator[tuple[Path, str]]:
    """Runs below `root` of which a store lacks something, and that store; crashed ones are marked.

    Args:
        root: of all runs.
        uri: only of this store; of each run's own if None.

    Yields:
        Run directories, a search's in place of its trials', and addresses of stores.
    """
    from lit_eve.tracking.delivery import pending
    from lit_eve.tracking.store import locate

    mark_crashed(root)
    wanted = None if uri is None else locate(uri).key
    for file in sorted(root.glob(f"*/*/tracking/{EVENTS_FILE}")):
        run = file.parent.parent
        search = run.parent / SEARCH_FOLDER
        if card_of(run) is not None and _recorded(search):
            continue
        own = store_of(run)
        if own is None or wanted not in (None, locate(own).key):
            continue
        if any(pending(member, locate(own)) for member in family(run)):
            yield run, own


def _recorded(folder: Path) -> bool:
    return (tracking_folder(folder) / EVENTS_FILE).is_file()
