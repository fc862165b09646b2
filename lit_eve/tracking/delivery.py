"""From the spools of a run into MLflow: in order, any number of times, everything once.

What was sent is remembered beside each spool, per store, as a byte offset that is written after
the store has accepted everything before it. A shipper that dies in between sends a little again,
and the store recognises it: metric rows by their recorded time, files by their name.
"""

from __future__ import annotations

import getpass
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from lit_eve.tracking.batches import Sender
from lit_eve.tracking.colours import run_colour, stage_colour
from lit_eve.tracking.liveness import spool_folders, tracking_folder, write_atomically
from lit_eve.tracking.searches import card_of, parent_uid
from lit_eve.tracking.spool import EVENTS_FILE, Event, read_events
from lit_eve.tracking.store import Store, experiment_id
from lit_eve.tracking.views import KIND_TAG, update_views

if TYPE_CHECKING:
    from mlflow import MlflowClient

UID_TAG = "lit_eve.uid"
STAGE_TAG = "lit_eve.stage"
PARENT_TAG = "mlflow.parentRunId"
COLOUR_TAG = "mlflow.runColor"
SYSTEM_FOLDER = "system"
"""Below the run's own spool: what the shipper measures of the machine, in a file of its own."""


@dataclass
class Shipped:
    """How far one spool was sent to one store."""

    store: str
    run_id: str = ""
    experiment_id: str = ""
    offset: int = 0
    pictures: dict[str, int] = field(default_factory=dict)


@dataclass
class _Route:
    """A spool and the run it goes to."""

    folder: Path
    uid: str
    shipped: Shipped


class Delivery:
    """Carries the spools of one run directory, `<runs>/<experiment>/<run id>`, into one store."""

    def __init__(self, client: MlflowClient, store: Store, run_directory: Path) -> None:
        """Nothing is sent yet.

        Args:
            client: of the store.
            store: where to.
            run_directory: `<runs>/<experiment>/<run id>`.
        """
        self.client = client
        self.store = store
        self.run_directory = Path(run_directory).resolve()
        self.num_sent = 0
        self.num_refused = 0
        self._turned = False
        self._adopted = card_of(self.run_directory) is None
        self._routes: dict[Path, _Route] = {}

    def ship(self) -> int:
        """Send what the spools hold by now.

        Returns:
            The number of events sent by this call.

        Raises:
            RunDeletedError: if the run was deleted in the UI.
            Exception: whatever MLflow raises when the store cannot be reached; nothing is lost, a
                later call goes on from there.
        """
        before = self.num_sent
        own, *stages = spool_folders(self.run_directory)
        run = self._route(own, None)
        if run is None:
            return 0
        self._adopt()
        self._drain(run)
        system = self._route(own / SYSTEM_FOLDER, run, shared=True)
        routes = [self._route(stage, run) for stage in stages]
        for route in (system, *routes):
            if route is not None:
                self._drain(route)
        if self._turned:
            self._turned = False
            shown = [(r.folder.parent.name, r.shipped) for r in routes if r is not None]
            update_views(
                self.client,
                run.shipped.experiment_id,
                run.shipped.run_id,
                [(name, shipped.run_id, shipped.pictures) for name, shipped in shown],
            )
        return self.num_sent - before

    def idle(self) -> bool:
        """Whether everything that the spools hold by now was sent by this object."""
        own, *stages = spool_folders(self.run_directory)
        sizes = {folder: _size(folder) for folder in (own, own / SYSTEM_FOLDER, *stages)}
        sent = {folder: route.shipped.offset for folder, route in self._routes.items()}
        return self._adopted and all(sent.get(f, 0) == size for f, size in sizes.items() if size)

    def _adopt(self) -> None:
        """Put a trial below its search, as soon as the store knows both."""
        wanted = None if self._adopted else parent_uid(self.run_directory)
        own = self._routes[tracking_folder(self.run_directory)].shipped
        if wanted is None:
            return
        found = self.client.search_runs(
            [own.experiment_id], f"tags.`{UID_TAG}` = '{wanted}'", max_results=1
        )
        if found:
            self.client.set_tag(own.run_id, PARENT_TAG, found[0].info.run_id)
            self._adopted = True

    def run_id(self) -> str:
        """MLflow's id of the run; empty while the store does not know it."""
        return recall(tracking_folder(self.run_directory), self.store).run_id

    def _drain(self, route: _Route) -> None:
        def accepted(offset: int, num_events: int) -> None:
            route.shipped.offset = offset
            route.shipped.pictures |= sender.pictures
            self._remember(route)
            self.num_sent += num_events

        sender = Sender(self.client, route.shipped.run_id, route.folder, route.uid, accepted)
        try:
            for event, offset in read_events(route.folder / EVENTS_FILE, route.shipped.offset):
                sender.add(event, offset)
            sender.flush()
        finally:
            self.num_refused += sender.num_refused
            self._turned = self._turned or sender.num_turns > 0

    def _route(self, folder: Path, parent: _Route | None, shared: bool = False) -> _Route | None:
        """The way of one spool: to the run of its own, below `parent`, or to `parent`'s itself.

        None if the spool holds nothing yet.
        """
        if folder in self._routes:
            return self._routes[folder]
        first = next(read_events(folder / EVENTS_FILE), None)
        if first is None or first[0]["k"] != "open":
            return None
        route = _Route(folder, first[0]["uid"], recall(folder, self.store))
        if route.shipped.offset > (folder / EVENTS_FILE).stat().st_size:
            route.shipped.offset = 0  # another file of that name
        if shared and parent is not None:
            if route.shipped.run_id != parent.shipped.run_id:
                route.shipped = Shipped(
                    self.store.shown, parent.shipped.run_id, parent.shipped.experiment_id
                )
        else:
            self._bind(route, first[0], parent)
        self._remember(route)
        self._routes[folder] = route
        return route

    def _bind(self, route: _Route, first: Event, parent: _Route | None) -> None:
        """Find the run that belongs to the spool, or create it."""
        from mlflow.exceptions import MlflowException

        shipped = route.shipped
        if shipped.run_id:
            try:
                self.client.get_run(shipped.run_id)
                return
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                shipped.offset = 0  # the store was emptied: send everything again
        if parent is None:
            name = self.run_directory.parent.name
            shipped.experiment_id = experiment_id(self.client, self.store, name)
        else:
            shipped.experiment_id = parent.shipped.experiment_id
        known = self.client.search_runs(
            [shipped.experiment_id], f"tags.`{UID_TAG}` = '{route.uid}'", max_results=1
        )
        if known:
            shipped.run_id = known[0].info.run_id
            return
        name = self.run_directory.name if parent is None else route.folder.parent.name
        tags = _first_tags(route.uid) | {COLOUR_TAG: self._colour(shipped.experiment_id, parent)}
        if parent is None:
            tags[KIND_TAG] = "run"
        else:
            tags |= {KIND_TAG: "stage", STAGE_TAG: name, PARENT_TAG: parent.shipped.run_id}
        created = self.client.create_run(
            shipped.experiment_id, start_time=first["t"], tags=tags, run_name=name
        )
        shipped.run_id = created.info.run_id

    def _colour(self, experiment: str, parent: _Route | None) -> str:
        card = card_of(self.run_directory)
        if parent is None and card is not None:
            return run_colour(card.number + 1)  # the search itself has the first
        if parent is None:
            runs = self.client.search_runs([experiment], f"tags.`{KIND_TAG}` = 'run'")
            return run_colour(len(runs))
        run_id = parent.shipped.run_id
        stages = self.client.search_runs([experiment], f"tags.`{PARENT_TAG}` = '{run_id}'")
        own = self.client.get_run(run_id).data.tags.get(COLOUR_TAG, run_colour(0))
        return stage_colour(own, len(stages))

    def _remember(self, route: _Route) -> None:
        text = json.dumps(asdict(route.shipped))
        write_atomically(_memory(route.folder, self.store), text)


def recall(folder: Path, store: Store) -> Shipped:
    """How far a spool was sent to a store; its `run_id` is empty if that never happened."""
    try:
        return Shipped(**json.loads(_memory(folder, store).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return Shipped(store.shown)


def pending(run_directory: Path, store: Store) -> bool:
    """Whether the spools of a run hold anything that was never sent to the store."""
    own, *stages = spool_folders(run_directory)
    folders = (own, own / SYSTEM_FOLDER, *stages)
    return any(_size(folder) > recall(folder, store).offset for folder in folders)


def _size(folder: Path) -> int:
    """Bytes of a spool; 0 for none."""
    try:
        return (folder / EVENTS_FILE).stat().st_size
    except FileNotFoundError:
        return 0


def _memory(folder: Path, store: Store) -> Path:
    return folder / f"shipped-{store.key}.json"


def _first_tags(uid: str) -> dict[str, str]:
    tags = {UID_TAG: uid, "mlflow.source.name": "lit-eve", "mlflow.source.type": "LOCAL"}
    try:
        tags["mlflow.user"] = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        tags["mlflow.user"] = "unknown"
    return tags
