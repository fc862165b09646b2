"""The process that prepares a dataset: `python -m lit_eve_data.preparing.writing`, by `prepare`.

It stands alone, so that nothing LitData does to a process (start method, signal handlers, seeds)
reaches the training. Workers make the records, this process writes them in order, re-reads all of
them, writes the manifest and only then gives the directory its name. Progress goes to standard
output, one JSON object a line. It ends when its standard input closes, that is, with its parent.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from lit_eve_data.disk.manifest import Manifest, Part, SplitManifest, write_manifest
from lit_eve_data.disk.records import BadSampleError
from lit_eve_data.preparing.pool import WorkerPool
from lit_eve_data.preparing.split_writer import CHUNK_BYTES, Reject, SplitWriter, to_disk
from lit_eve_data.sources import Maker, Source, source_from

_TASK = 200  # records a worker makes at a time
Result = bytes | Reject


@dataclass(frozen=True)
class WritingOptions:
    """How a dataset is written."""

    workers: int
    """Processes that make records; 0 makes them in this one."""
    max_rejects: float = 0.0
    """Share of the inputs that may be unusable."""
    chunk_bytes: int = CHUNK_BYTES


def main() -> None:
    """Read the order from standard input, and carry it out."""
    order = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    partial = Path(order["partial"])
    try:
        write_dataset(
            source_from(order["source"]), partial, WritingOptions(**order["options"]), _tell
        )
        os.replace(partial, order["final"])
    except (ValueError, OSError, RuntimeError) as error:
        print(json.dumps({"error": str(error)}), flush=True)
        sys.exit(1)


def write_dataset(
    source: Source,
    directory: Path,
    options: WritingOptions,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Write, verify and stamp all splits of a source.

    Args:
        source: what to write.
        directory: an empty one, or one in which the same source was interrupted.
        options: how.
        progress: called with inputs dealt with and inputs in all.

    Raises:
        ValueError: if there are none, or too many are unusable, with the reasons.
    """
    splits = {name: entries for name, entries in source.splits().items() if len(entries)}
    if not splits:
        raise ValueError("the source holds no inputs: there is nothing to prepare.")
    total = sum(map(len, splits.values()))
    progress(0, total)
    writers = {name: SplitWriter(directory / name, options.chunk_bytes) for name in splits}
    done = sum(writer.position for writer in writers.values())
    tasks = (
        [entries[place] for place in range(start, min(start + _TASK, len(entries)))]
        for name, entries in splits.items()
        for start in range(writers[name].position, len(entries), _TASK)
    )
    stamped: dict[str, SplitManifest] = {}
    with _results(source.maker, tasks, options.workers) as results:
        for name, entries in splits.items():
            while writers[name].position < len(entries):
                result = next(results)
                writers[name].add(result)
                if isinstance(result, Reject):
                    _check_rejects(directory, writers, options.max_rejects * total)
                done += 1
                if done % _TASK == 0 or done == total:
                    progress(done, total)
            stamped[name] = writers[name].close()
    for writer in writers.values():
        writer.clean()
    write_manifest(directory, Manifest((Part("", source.description(), stamped),)))
    for path in (*directory.rglob("*"), directory):
        to_disk(path)


def _check_rejects(directory: Path, writers: Mapping[str, SplitWriter], most: float) -> None:
    """Stop when more inputs than `most` are unusable."""
    counts = sum((Counter(writer.rejects) for writer in writers.values()), Counter[str]())
    if counts.total() <= most:
        return
    for writer in writers.values():
        writer.checkpoint()  # so that the report names them all
    reasons = ", ".join(f"{count} x {reason}" for reason, count in counts.most_common())
    last = next(w.last_reject for w in reversed(list(writers.values())) if w.last_reject)
    raise ValueError(
        f"{counts.total()} inputs cannot be used ({reasons}), more than the {most:g} allowed. One "
        f"of them: {last.name}: {last.message} All are listed in {directory}/*/rejects.jsonl. "
        "Allow a larger share (--max-rejects) and start again to go on; or mend the source, remove "
        "that folder and start again."
    )


@contextmanager
def _results(maker: Maker, tasks: Iterator[list[Any]], workers: int) -> Iterator[Iterator[Result]]:
    """What comes of the inputs of all tasks, in order."""
    if workers == 0:
        yield (_make_one(maker, entry) for task in tasks for entry in task)
        return
    # Importing LitData takes seconds: it must keep neither the first results nor an end waiting.
    importing = threading.Thread(
        target=import_module, args=("litdata.streaming.writer",), daemon=True
    )
    importing.start()
    with WorkerPool(_TaskMaker(maker), tasks, workers) as pool:
        yield (result for results in pool for result in results)
    importing.join()


@dataclass(frozen=True)
class _TaskMaker:
    """Makes the records of a list of inputs; what a worker process holds."""

    maker: Maker

    def __call__(self, task: list[Any]) -> list[Result]:
        return [_make_one(self.maker, entry) for entry in task]


def _make_one(maker: Maker, entry: Any) -> Result:
    """The record of an input, or why there is none: no input, however strange, ends the work."""
    try:
        return maker(entry)
    except BadSampleError as error:
        return Reject(maker.name(entry), error.reason, str(error))
    except Exception as error:  # strangers' files make decoders raise anything
        return Reject(maker.name(entry), "error", f"{type(error).__name__}: {error}")


def _end_with_parent() -> None:
    """Wait for the parent to go away; then there is nobody to prepare for."""
    sys.stdin.read()
    os.killpg(os.getpid(), signal.SIGKILL)  # it leads a session of its own: its workers end too


def _tell(done: int, total: int) -> None:
    print(json.dumps({"done": done, "total": total}), flush=True)


if __name__ == "__main__":
    main()
