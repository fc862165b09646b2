"""Questions of a prepared dataset: the last answer of every conversation is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lit_eve_data.benchmarks.base import BenchmarkQuestion
from lit_eve_data.disk.reading import RecordStore
from lit_eve_data.disk.records import Sample


def prepared(
    directory: Path, split: str, each: int | None, kinds: Sequence[str] = ()
) -> list[BenchmarkQuestion]:
    """Samples of one split.

    Args:
        directory: the dataset.
        split: train, val or test.
        each: most questions of each kind; None: all.
        kinds: only these; none: all there are.

    Raises:
        ValueError: if it is no whole dataset, or its samples ask nothing.
    """
    store = RecordStore(directory, split)
    found = [
        _question(sample)
        for kind in kinds or store.sidecar.kinds
        for sample in store.questions(kind, len(store) if each is None else each)
    ]
    if not found:
        raise ValueError(f"{directory} has nothing in its split {split!r}: choose another.")
    return found


def _question(sample: Sample) -> BenchmarkQuestion:
    if len(sample.turns) < 2 or sample.turns[-1]["role"] != "assistant":
        raise ValueError(
            f"sample {sample.id!r} of kind {sample.kind} ends with no answer: nothing can be asked "
            "of it. Evaluate on conversations."
        )
    return BenchmarkQuestion(
        sample.id,
        sample.turns[-2]["content"],
        tuple(sample.images),
        (sample.turns[-1]["content"],),
        category=sample.kind,
        group=sample.id,
        history=tuple(sample.turns[:-2]),
        facts=sample.facts,
    )
