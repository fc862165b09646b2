"""What one shipper carries: a run, or a search with all its trials."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from lit_eve.tracking.batches import RunDeletedError
from lit_eve.tracking.delivery import Delivery
from lit_eve.tracking.liveness import tracking_folder
from lit_eve.tracking.searches import family
from lit_eve.tracking.store import Store

if TYPE_CHECKING:
    from mlflow import MlflowClient

LOCK_FILE = "shipping.lock"
"""In a run's tracking folder: one process at a time carries it."""


class Fleet:
    """Carries one run directory into one store; that of a search with all its trials.

    The trials of a search share one process, one client and one import of MLflow.
    """

    def __init__(self, client: MlflowClient, store: Store, run_directory: Path) -> None:
        """Nothing is sent yet. The caller holds the lock of `run_directory`.

        Args:
            client: of the store.
            store: where to.
            run_directory: `<runs>/<experiment>/<run id>`, or a search's `<runs>/<name>/search`.
        """
        self.client, self.store = client, store
        self.run_directory = Path(run_directory).resolve()
        self._deliveries: dict[Path, Delivery] = {}
        self._deleted: set[Path] = set()

    @property
    def num_sent(self) -> int:
        """Events sent by now."""
        return sum(delivery.num_sent for delivery in self._deliveries.values())

    @property
    def num_refused(self) -> int:
        """Events that the store refuses."""
        return sum(delivery.num_refused for delivery in self._deliveries.values())

    @property
    def run_id(self) -> str:
        """MLflow's id of the run, or of the search's own; empty while the store has none."""
        return self._delivery(self.run_directory).run_id()

    def ship(self) -> None:
        """Send what the spools hold by now.

        Raises:
            RunDeletedError: if the run was deleted in the UI; a deleted trial is passed over.
            Exception: whatever MLflow raises when the store cannot be reached; nothing is lost.
        """
        for run in family(self.run_directory):
            delivery = self._delivery(run)
            if run in self._deleted or delivery.idle():
                continue
            if run == self.run_directory:
                delivery.ship()
                continue
            with suppress(Timeout), FileLock(tracking_folder(run) / LOCK_FILE, timeout=0):
                try:
                    delivery.ship()
                except RunDeletedError:
                    self._deleted.add(run)

    def _delivery(self, run: Path) -> Delivery:
        if run not in self._deliveries:
            self._deliveries[run] = Delivery(self.client, self.store, run)
        return self._deliveries[run]
