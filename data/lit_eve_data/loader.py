"""The loader of packed batches: deterministic, resumable anywhere, the same with any workers.

The plan runs in the main process and costs next to nothing; workers only read and encode what they
are told to. The state is that of the batch handed out last, never of one prefetched.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lit_eve_data.assembling import ALONE, Assembler, Made, Share, Task, make_all
from lit_eve_data.batches import PackedBatch
from lit_eve_data.lengths import SampleEncoder
from lit_eve_data.packing import Cursor, PackingPlan
from lit_eve_data.reading import RecordView

_TOLERATED = 0.001  # share of samples that may fail
_JUDGED_FROM = 10_000  # samples; before, one bad sample would be a large share


@dataclass
class PackedLoader:
    """Batches of a plan, for ever, in epochs of `steps` steps.

    An epoch here is virtual: it ends after `steps` steps and the next one goes on in the plan.

    Args:
        plan: which samples come when.
        views: the samples, one view for each source of the plan.
        encoder: turns samples into items.
        steps: optimizer steps of a virtual epoch.
        share: this process's part of a step.
        workers: processes that read ahead; 0 reads in this one.

    Raises:
        ValueError: if a step has fewer rows than it must be shared among.
    """

    plan: PackingPlan
    views: Sequence[RecordView]
    encoder: SampleEncoder
    steps: int
    share: Share = ALONE
    workers: int = 0
    failures: Counter[str] = field(init=False, default_factory=Counter)
    """Samples that could not be used so far, by reason."""
    num_samples: int = field(init=False, default=0)
    """Samples handed out by this process."""

    def __post_init__(self) -> None:
        pieces = self.share.world * self.share.micro_batches
        if self.plan.rows_per_step < pieces:
            raise ValueError(
                f"a step has {self.plan.rows_per_step} rows of {self.plan.tokens_per_row} tokens, "
                f"too few for {self.share.world} processes x {self.share.micro_batches} "
                "micro-batches. Raise batch, lower tokens_per_row or use fewer devices."
            )
        self._assemble = Assembler(self.views, self.encoder, self.plan.tokens_per_row)
        self._position = _Position(0, 0, 0, self.plan.start)

    def __len__(self) -> int:
        return self.steps * self.share.micro_batches

    def __iter__(self) -> Iterator[PackedBatch]:
        """The batches left in this virtual epoch."""
        # Lightning stops a sized loader by counting and never exhausts it, so an epoch is closed
        # when the next one starts, not when this one ends.
        if self._position.step == self.steps:
            self._position = replace(self._position, epoch=self._position.epoch + 1, step=0)
        positions: deque[_Position] = deque()
        for made in make_all(self._assemble, self._tasks(positions), self.workers):
            self._position = positions.popleft()
            self._count(made)
            yield made.batch

    def state_dict(self) -> dict[str, Any]:
        """Plain JSON, the same on every rank; it belongs to the batch handed out last."""
        position = self._position
        return {
            "plan": self.plan.fingerprint(),
            "epoch": position.epoch,
            "step": position.step,
            "micro": position.micro,
            "cursor": position.cursor.state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on behind the batch the state belongs to.

        Raises:
            ValueError: if the state is of another plan, or in the middle of a step that is now
                shared differently.
        """
        if state["plan"] != self.plan.fingerprint():
            raise ValueError(
                "the saved position belongs to other data: datasets, weights, tokenizer, image "
                "sizes, tokens_per_row, batch or seed changed. Undo the change, or start a new run "
                "from the checkpoint's weights."
            )
        if not 0 <= state["micro"] < self.share.micro_batches:
            raise ValueError(
                f"the position was saved after micro-batch {state['micro']} of a step, but a step "
                f"now has {self.share.micro_batches}: resume with the devices it was saved with."
            )
        cursor = Cursor.from_state(state["cursor"])
        self._position = _Position(state["epoch"], state["step"], state["micro"], cursor)

    def _tasks(self, positions: deque[_Position]) -> Iterator[Task]:
        """What is left of this virtual epoch; the position after each task goes to `positions`."""
        start = self._position
        micro = start.micro
        steps = self.plan.steps(start.cursor)
        before = start.cursor
        for step in range(start.step, self.steps):
            rows, cursor = next(steps)
            pieces = self.share.world * self.share.micro_batches
            labels_share = max(1, self.plan.supervised(rows)) / pieces
            for number in range(micro, self.share.micro_batches):
                last = number == self.share.micro_batches - 1
                positions.append(
                    _Position(start.epoch, step + 1, 0, cursor)
                    if last
                    else _Position(start.epoch, step, number + 1, before)
                )
                yield Task(self.share.rows(rows, number), labels_share)
            micro, before = 0, cursor

    def _count(self, made: Made) -> None:
        self.num_samples += made.batch.num_samples + len(made.failed)
        self.failures.update(reason for reason, _ in made.failed)
        failed = self.failures.total()
        if made.failed and failed > _TOLERATED * max(self.num_samples, _JUDGED_FROM):
            counts = ", ".join(f"{count} x {reason}" for reason, count in self.failures.items())
            raise RuntimeError(
                f"{failed} of {self.num_samples} samples could not be used ({counts}), more than "
                f"{_TOLERATED:.1%}: the data is broken. The last one: {made.failed[-1][1]}"
            )


@dataclass(frozen=True)
class _Position:
    """Where a loader stands: `step` and `micro` are done in the virtual epoch."""

    epoch: int
    step: int
    micro: int
    cursor: Cursor
