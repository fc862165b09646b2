"""Events of one spool to one MLflow run, in few requests and in the order they were recorded."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import UnidentifiedImageError

from lit_eve.tracking.attachments import Attachments
from lit_eve.tracking.spool import Event

if TYPE_CHECKING:
    from mlflow import MlflowClient

MAX_METRICS = 1000
MAX_TAGS = 90
MAX_KEY = 250
MAX_TAG_VALUE = 7900
_KEY_CHARACTERS = "_/.: -"
_REFUSALS = ("INVALID_PARAMETER_VALUE", "RESOURCE_ALREADY_EXISTS", "BAD_REQUEST", "INVALID_STATE")
_log = logging.getLogger(__name__)


class RunDeletedError(RuntimeError):
    """The run was deleted in the UI: nothing can be added to it."""


class Sender:
    """Sends events to one run: numbers, parameters and tags together, the rest one by one.

    An event that the store refuses for good (a parameter that changed, a file that is gone) is
    reported and passed over; an error that may go away (no server, full disk, wrong password) is
    raised, and the events since `accepted` have to be sent again.
    """

    def __init__(
        self,
        client: MlflowClient,
        run_id: str,
        folder: Path,
        uid: str,
        accepted: Callable[[int, int], None],
    ) -> None:
        """Nothing is sent yet.

        Args:
            client: of the store.
            run_id: where to.
            folder: the spool's.
            uid: the spool's.
            accepted: called with the offset up to which everything is in the store, and with the
                number of events since the last call.
        """
        self.client = client
        self.run_id = run_id
        self.num_refused = 0
        self.pictures: dict[str, int] = {}  # key to newest step, of what was sent
        self.num_turns = 0  # events that change what the run has to show, beyond its numbers
        self._accepted = accepted
        self._files = Attachments(client, run_id, folder, uid)
        self._offset = 0
        self._num_events = 0
        self._metrics: list[Any] = []
        self._params: dict[str, str] = {}
        self._tags: dict[str, str] = {}
        self._kinds: dict[str, Callable[[Event], None]] = {
            "metrics": self._collect_metrics,
            "params": lambda event: self._params.update(event["v"]),
            "tags": self._collect_tags,
            "note": lambda event: self._tags.update({"mlflow.note.content": _cut(event["v"])}),
        }
        self._single: dict[str, Callable[[Event], None]] = {
            "image": self._image,
            "table": self._files.table,
            "artifact": self._files.file,
            "status": self._status,
            "dataset": self._dataset,
            "about": self._about,
        }

    def add(self, event: Event, offset: int) -> None:
        """Send the event now or with the next `flush`."""
        kind = event["k"]
        if kind in self._kinds:
            if self._full(event):
                self.flush()
            self._guarded(kind, self._kinds[kind], event)
        elif kind in self._single:
            self.flush()
            self.num_turns += 1
            self._guarded(f"{kind} {event.get('key', '')}", self._single[kind], event)
        self._offset = offset
        self._num_events += 1
        if kind in self._single:
            self._accept()

    def flush(self) -> None:
        """Send what was collected: in one request, or apart if the store refuses a part of it."""
        from mlflow.entities import Param, RunTag

        params = [Param(key, value) for key, value in self._params.items()]
        tags = [RunTag(key, value) for key, value in self._tags.items()]
        send = self.client.log_batch
        if (self._metrics or params or tags) and self._refused(
            send, self.run_id, metrics=self._metrics, params=params, tags=tags
        ):
            self._guarded("metrics", send, self.run_id, metrics=self._metrics)
            self._guarded("tags", send, self.run_id, tags=tags)
            for param in params:
                if not self._guarded(f"param {param.key}", send, self.run_id, params=[param]):
                    # MLflow never changes a parameter; a resumed run may have another value.
                    self.client.set_tag(self.run_id, f"changed.{param.key}", param.value)
        self._metrics, self._tags, self._params = [], {}, {}
        self._accept()

    def _accept(self) -> None:
        if self._num_events:
            self._accepted(self._offset, self._num_events)
            self._num_events = 0

    def _full(self, event: Event) -> bool:
        if event["k"] == "metrics":
            return len(self._metrics) + len(event["v"]) > MAX_METRICS
        return len(self._tags) + len(event["v"]) > MAX_TAGS

    def _collect_metrics(self, event: Event) -> None:
        from mlflow.entities import Metric

        for key, value in event["v"].items():
            if isinstance(value, int | float):
                self._metrics.append(Metric(_key(key), float(value), event["t"], event["s"]))
            else:
                _log.warning("metric %s is %r, no number: left out.", key, value)

    def _collect_tags(self, event: Event) -> None:
        self._tags.update({_key(key): _cut(str(value)) for key, value in event["v"].items()})

    def _image(self, event: Event) -> None:
        self._files.image(event)
        self.pictures[event["key"]] = event["s"]

    def _about(self, event: Event) -> None:
        experiment = self.client.get_run(self.run_id).info.experiment_id
        self.client.set_experiment_tag(experiment, "mlflow.note.content", event["v"])

    def _status(self, event: Event) -> None:
        if event["v"] == "RUNNING":
            self.client.update_run(self.run_id, status="RUNNING")
        else:
            self.client.set_terminated(self.run_id, event["v"], event["t"])

    def _dataset(self, event: Event) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        fields = event["v"]
        dataset = Dataset(
            name=fields["name"],
            digest=fields["digest"],
            source_type="local",
            source=json.dumps({"uri": fields["source"]}),
            profile=json.dumps({"samples": fields.get("samples", {})}),
        )
        context = InputTag("mlflow.data.context", fields["context"])
        self.client.log_inputs(self.run_id, [DatasetInput(dataset, [context])])

    def _guarded(self, what: str, call: Callable[..., object], *args: Any, **kwargs: Any) -> bool:
        """Call; False, after a word about it, if the store refused it for good."""
        error = self._refused(call, *args, **kwargs)
        if error is not None:
            self.num_refused += 1
            _log.warning("not accepted by the tracking store, left out: %s (%s)", what, error)
        return error is None

    def _refused(self, call: Callable[..., object], *args: Any, **kwargs: Any) -> Exception | None:
        """Call; the error if the store refused it for good.

        Raises:
            RunDeletedError: if it refuses everything because the run was deleted.
            Exception: if trying again later may help.
        """
        try:
            call(*args, **kwargs)
        except Exception as error:
            if not _refusal(error):
                raise
            if self.client.get_run(self.run_id).info.lifecycle_stage == "deleted":
                raise RunDeletedError(
                    f"MLflow run {self.run_id} was deleted: nothing more is sent to it. Restore it "
                    "in the UI and sync again to fill it up."
                ) from error
            return error
        return None


def _refusal(error: Exception) -> bool:
    """Whether sending the same again would meet the same answer."""
    from mlflow.exceptions import MlflowException
    from requests import HTTPError

    if isinstance(error, MlflowException):
        return error.error_code in _REFUSALS
    if isinstance(error, HTTPError):
        return error.response is not None and error.response.status_code in (400, 404, 409, 413)
    return isinstance(
        error, FileNotFoundError | UnidentifiedImageError | KeyError | TypeError | ValueError
    )


def _key(key: str) -> str:
    allowed = (c if c.isascii() and (c.isalnum() or c in _KEY_CHARACTERS) else "_" for c in key)
    return "".join(allowed)[:MAX_KEY]


def _cut(text: str) -> str:
    if len(text) <= MAX_TAG_VALUE:
        return text
    return text[:MAX_TAG_VALUE] + "\n..."
