"""The spool: an append-only file of events that a training writes and a shipper reads.

A write is one line and one system call, so a training neither waits for a tracking server nor
notices that there is none. Every event carries the time at which it was recorded. MLflow ignores
a metric row it already has (same key, value, time and step), so a shipper may send any part of a
spool again: everything arrives once.

One spool per MLflow run: `<run>/tracking/` for the run itself, `<run>/<stage>/tracking/` for each
stage. Files: `events.jsonl` (one JSON object a line, field `k` says which kind) and `media/`.
"""

from __future__ import annotations

import json
import logging
import os
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

Status = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]
Event = dict[str, Any]

EVENTS_FILE = "events.jsonl"
MEDIA_FOLDER = "media"
STATE_TAG = "lit_eve.state"
MAX_PARAMS = 8
"""MLflow's image cards print every parameter above the picture: more than a few hide it."""

_RANK_VARIABLES = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")
_log = logging.getLogger(__name__)


def environment_rank() -> int:
    """This process's rank as its launcher states it, 0 if there is none.

    Source:
        the variables, in this order, that `lightning.fabric.utilities.rank_zero` reads.
    """
    return next((int(os.environ[name]) for name in _RANK_VARIABLES if name in os.environ), 0)


class Spool:
    """Writes the events of one MLflow run.

    Only the process that opened the spool writes, and only if it is rank 0: forked data workers
    and other ranks call the same methods and nothing happens. A full disk or a lost mount is
    reported once through `logging` and never stops the caller.

    Opened again on an existing file (a resumed run), the torn last line that a crash may have left
    is cut off, and metrics, pictures and tables of a step that is already there are not written a
    second time: the steps between the checkpoint and the crash would otherwise appear twice.
    """

    def __init__(
        self, directory: Path, *, rank: int | None = None, tags: Mapping[str, str] | None = None
    ) -> None:
        """Open `directory` for writing.

        Args:
            directory: the spool's folder, created if absent.
            rank: this process's rank; None asks the environment.
            tags: written once, when the spool is new.

        Raises:
            OSError: if the folder cannot be written, before any training has started.
        """
        self.directory = Path(directory)
        self.path = self.directory / EVENTS_FILE
        self.uid = ""
        self._params: dict[str, str] = {}
        self._datasets: list[dict[str, object]] = []
        self._steps: dict[str, int] = {}  # last recorded step of each key, until it is passed
        self._resumed_step = -1
        self._torn = False
        self._lost = 0
        self._descriptor = -1
        self._encode = json.JSONEncoder(separators=(",", ":"), default=_plain).encode
        self._owner = os.getpid() if (environment_rank() if rank is None else rank) == 0 else -1
        if self._owner != -1:
            self._open(tags or {})

    def _open(self, tags: Mapping[str, str]) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        _cut_torn_line(self.path)
        for event, _ in read_events(self.path):
            if event["k"] == "open":
                self.uid = event["uid"]
            elif event["k"] == "params":
                self._params.update(event["v"])
            elif event["k"] == "dataset":
                self._datasets.append(event["v"])
            for key in _step_keys(event):
                self._steps[key] = max(event["s"], self._steps.get(key, -1))
        self._resumed_step = max(self._steps.values(), default=-1)
        self._descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        if not self.uid:
            self.uid = uuid.uuid4().hex
            self._append({"k": "open", "uid": self.uid})
            self.tags(tags)

    @property
    def writes(self) -> bool:
        """Whether this process is the one whose events are recorded."""
        return self._owner == os.getpid() and self._descriptor >= 0

    @property
    def known_params(self) -> Mapping[str, str]:
        """What was recorded by `params`, by earlier processes too."""
        return self._params

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Record numbers of one step. The part of a key before its last `/` is its chart group."""
        if step <= self._resumed_step:
            values = {k: v for k, v in values.items() if self._steps.get("m:" + k, -1) < step}
        if values:
            self._append({"k": "metrics", "s": step, "v": values})

    def params(self, values: Mapping[str, object]) -> None:
        """Record what varies between runs; everything else belongs into the experiment file.

        Raises:
            ValueError: if the spool would hold more than `MAX_PARAMS` of them.
        """
        texts = {key: str(value) for key, value in values.items()}
        together = self._params | texts
        if len(together) > MAX_PARAMS:
            raise ValueError(
                f"{len(together)} parameters, but MLflow prints all of them above every picture: "
                f"at most {MAX_PARAMS} leave it visible. Record those that vary between the runs "
                "you compare; the resolved experiment file holds the rest."
            )
        changed = {k: v for k, v in texts.items() if self._params.get(k) != v}
        self._params = together
        if changed:
            self._append({"k": "params", "v": changed})

    def tags(self, values: Mapping[str, str]) -> None:
        """Record short texts of the run; a later value replaces an earlier one."""
        if values:
            self._append({"k": "tags", "v": dict(values)})

    def note(self, markdown: str) -> None:
        """Record the run's description; the first lines are what the run list shows."""
        self._append({"k": "note", "v": markdown})

    def about(self, markdown: str) -> None:
        """Record what the experiment, all its runs together, is about."""
        self._append({"k": "about", "v": markdown})

    def status(self, status: Status, state: str | None = None, at: float | None = None) -> None:
        """Record where the run stands.

        Args:
            status: one of MLflow's words; KILLED means that somebody stopped the run on purpose.
            state: a finer word for the tag `lit_eve.state`, by default the status in lower case.
            at: when it came to that, in seconds since 1970; by default now.

        Raises:
            ValueError: if `status` is not one of MLflow's words.
        """
        if status not in get_args(Status):
            raise ValueError(f"status {status!r} is none of {', '.join(get_args(Status))}.")
        event = {"k": "status", "v": status}
        self._append(event if at is None else {**event, "t": int(at * 1000)})
        self.tags({STATE_TAG: state or status.lower()})

    def image(self, key: str, step: int, path: Path) -> None:
        """Record a picture, already saved, under a key that the UI shows with a step slider."""
        if not self.recorded("i:" + key, step):
            self._append({"k": "image", "key": key, "s": step, "path": self._portable(path)})

    def table(self, name: str, step: int, rows: Sequence[Mapping[str, object]]) -> None:
        """Record rows of one step. A cell that is a `Path` is a picture, already saved."""
        if self.recorded("t:" + name, step):
            return
        portable = [
            {k: {"image": self._portable(v)} if isinstance(v, Path) else v for k, v in row.items()}
            for row in rows
        ]
        self._append({"k": "table", "key": name, "s": step, "rows": portable})

    def artifact(self, path: Path, folder: str = "") -> None:
        """Record a file to be kept with the run, under `folder`. It is read when it is shipped."""
        self._append({"k": "artifact", "path": self._portable(path), "to": folder})

    def text(self, name: str, text: str) -> None:
        """Keep a text with the run as the artifact `name`, which may contain folders."""
        if not self.writes:
            return
        try:
            path = self.media(f"artifacts/{name}")
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            self._report(error)
            return
        self.artifact(path, folder=Path(name).parent.as_posix().removeprefix("."))

    def dataset(
        self,
        name: str,
        digest: str,
        source: str,
        context: str = "training",
        samples: Mapping[str, int] | None = None,
    ) -> None:
        """Record which data the run reads; said once, however often it is resumed.

        Args:
            name: the dataset's name in the experiment file.
            digest: changes when the data changes; its first 36 characters are kept.
            source: where it lies; credentials in it are removed.
            context: what it is read for.
            samples: how many, by split.
        """
        from lit_eve.tracking.redact import redact

        fields = {"name": name, "digest": digest[:36], "source": redact(source), "context": context}
        value: dict[str, object] = {**fields, "samples": dict(samples or {})}
        if value not in self._datasets:
            self._datasets.append(value)
            self._append({"k": "dataset", "v": value})

    def media(self, name: str) -> Path:
        """A path for a file of this spool; its folder exists afterwards."""
        path = self.directory / MEDIA_FOLDER / name
        if self.writes:
            path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def recorded(self, key: str, step: int) -> bool:
        """Whether an earlier process already wrote `key` at `step` or later.

        Args:
            key: the kind's first letter, a colon and the key: `i:val/answers`.
            step: the step about to be written.
        """
        return step <= self._resumed_step and self._steps.get(key, -1) >= step

    def fsync(self) -> None:
        """Put what was written onto the disk, so that a power cut cannot take it."""
        if self.writes:
            os.fsync(self._descriptor)

    def close(self) -> None:
        """Stop writing."""
        if self.writes:
            os.close(self._descriptor)
            self._descriptor = -1

    def __getstate__(self) -> dict[str, object]:
        """A copy in another process stays silent: the spool belongs to the one that opened it."""
        return {**self.__dict__, "_encode": None, "_descriptor": -1, "_owner": -1}

    def _portable(self, path: Path) -> str:
        """Relative to the spool where possible, so that a moved run can still be shipped."""
        root = self.directory.resolve().parent.parent
        resolved = Path(path).resolve()
        if resolved.is_relative_to(root):
            return os.path.relpath(resolved, self.directory.resolve())
        return str(resolved)

    def _append(self, event: Event) -> None:
        if self._owner != os.getpid() or self._descriptor < 0:
            return
        event.setdefault("t", int(time.time() * 1000))
        line = (self._encode(event) + "\n").encode()
        if self._torn:
            line = b"\n" + line
        try:
            written = os.write(self._descriptor, line)
        except OSError as error:
            self._report(error)
            return
        self._torn = written != len(line)
        if self._torn:
            self._report(OSError(f"only {written} of {len(line)} bytes were written"))

    def _report(self, error: OSError) -> None:
        if self._lost == 0:
            _log.warning(
                "%s: %s. The training goes on; what cannot be written will be missing from the "
                "tracked run. Free some space to record again.",
                self.path,
                error,
            )
        self._lost += 1


def read_events(path: Path, offset: int = 0) -> Iterator[tuple[Event, int]]:
    """The complete events of a spool from a byte offset on.

    Args:
        path: an `events.jsonl`; a missing one has no events.
        offset: where to start, 0 or an offset that this function gave.

    Yields:
        Each event with the offset behind it. A last line without its newline is not there yet; a
        line that is no JSON object (a write that a full disk cut short) is skipped.
    """
    if not path.exists():
        return
    with path.open("rb") as file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n"):
                return
            offset += len(line)
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict) and "k" in event:
                yield event, offset


def _cut_torn_line(path: Path) -> None:
    """Remove a last line without its newline: the process that wrote it died while writing."""
    if not path.exists():
        return
    with path.open("rb+") as file:
        end = file.seek(0, os.SEEK_END)
        keep = end
        while keep > 0:
            start = max(0, keep - 4096)
            file.seek(start)
            newline = file.read(keep - start).rfind(b"\n")
            if newline >= 0:
                keep = start + newline + 1
                break
            keep = start
        if keep != end:
            file.truncate(keep)


def _step_keys(event: Event) -> list[str]:
    if event["k"] == "metrics":
        return ["m:" + key for key in event["v"]]
    if event["k"] in ("image", "table"):
        return [f"{event['k'][0]}:{event['key']}"]
    return []


def _plain(value: object) -> object:
    """What JSON does not know: scalars of numpy and torch become numbers, the rest its text."""
    item = getattr(value, "item", None)
    return item() if callable(item) else str(value)
