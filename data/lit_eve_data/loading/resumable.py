"""What every training loader shares: order, workers, position, and samples that fail.

A plan says which samples make which step and has a cursor of a few numbers. It runs in the main
process and costs next to nothing; workers only make the batches they are told to. The state is that
of the batch handed out last, never of one prefetched.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, TypeVar

from lit_eve_data.loading.working import ALONE, Made, Share, make_all

TaskT = TypeVar("TaskT")
BatchT = TypeVar("BatchT")
StepT = TypeVar("StepT", covariant=True)

_TOLERATED = 0.001  # share of samples that may fail
_JUDGED_FROM = 10_000  # samples; before, one bad sample would be a large share


class PlanCursor(Protocol):
    """Where in a plan one stands."""

    def state(self) -> dict[str, Any]:
        """As plain JSON."""


class Plan(Protocol[StepT]):
    """Which samples make which step, for ever: a pure function of what it was made of."""

    @property
    def start(self) -> Any:
        """Before the first step."""

    def steps(self, cursor: Any) -> Iterator[tuple[StepT, Any]]:
        """Every step from `cursor` on, each with the cursor after it."""

    def cursor(self, state: Mapping[str, Any]) -> Any:
        """The cursor whose `state` that is."""

    def fingerprint(self) -> str:
        """Changes with everything the plan depends on."""

    def shares(self, cursor: Any) -> dict[str, tuple[float, float]]:
        """Share of what was drawn up to `cursor` that each source gave, and the one asked for."""


@dataclass(frozen=True)
class _Position:
    """Where a loader stands: `step` and `micro` are done in the virtual epoch."""

    epoch: int
    step: int
    micro: int
    cursor: PlanCursor


class ResumableLoader(Generic[TaskT, BatchT]):
    """Batches of a plan, for ever, in virtual epochs of `steps` steps.

    An epoch ends after `steps` steps, and the next one goes on in the plan where it ended.

    Args:
        plan: which samples come when.
        tasks: what a step of the plan is for this process: one task for each micro-batch.
        make: makes the batch of a task, here or in a worker.
        steps: optimizer steps of a virtual epoch.
        share: this process's part of a step.
        workers: processes that make batches ahead; 0 makes them in this one.
        ahead: told of every step `lookahead` steps before it is handed out.
        lookahead: how many steps that is.
    """

    def __init__(
        self,
        plan: Plan[Any],
        tasks: Callable[[Any], Sequence[TaskT]],
        make: Callable[[TaskT], Made[BatchT]],
        steps: int,
        share: Share = ALONE,
        workers: int = 0,
        ahead: Callable[[Any], None] | None = None,
        lookahead: int = 0,
    ) -> None:
        self.steps = steps
        self.share = share
        self.workers = workers
        self.failures: Counter[str] = Counter()
        """Samples that could not be used so far, by reason."""
        self.num_samples = 0
        """Samples this process was to use so far."""
        self._plan = plan
        self._fingerprint = plan.fingerprint()
        self._tasks_of = tasks
        self._make = make
        self._ahead, self._lookahead = ahead, lookahead
        self._position = _Position(0, 0, 0, plan.start)

    def __len__(self) -> int:
        return self.steps * self.share.micro_batches

    def __iter__(self) -> Iterator[BatchT]:
        """The batches left in this virtual epoch."""
        # Lightning stops a sized loader by counting and never exhausts it, so an epoch is closed
        # when the next one starts, not when this one ends.
        if self._position.step == self.steps:
            self._position = replace(self._position, epoch=self._position.epoch + 1, step=0)
        positions: deque[_Position] = deque()
        for made in make_all(self._make, self._tasks(positions), self.workers):
            self._position = positions.popleft()
            self._count(made)
            yield made.batch

    @property
    def shares(self) -> dict[str, tuple[float, float]]:
        """Share of all samples so far that each dataset gave, and the share asked for."""
        return self._plan.shares(self._position.cursor)

    def state_dict(self) -> dict[str, Any]:
        """Plain JSON, the same on every rank; it belongs to the batch handed out last."""
        position = self._position
        return {
            "plan": self._fingerprint,
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
        if state["plan"] != self._fingerprint:
            raise ValueError(
                "the saved position belongs to another order: datasets, weights, tokenizer, image "
                "sizes, tokens_per_row, batch or seed changed, or lit-eve did. Undo the change, or "
                "start a new run from the checkpoint's weights."
            )
        if not 0 <= state["micro"] < self.share.micro_batches:
            raise ValueError(
                f"the position was saved after micro-batch {state['micro']} of a step, but a step "
                f"now has {self.share.micro_batches}: resume with the devices it was saved with."
            )
        cursor = self._plan.cursor(state["cursor"])
        self._position = _Position(state["epoch"], state["step"], state["micro"], cursor)

    def _tasks(self, positions: deque[_Position]) -> Iterator[TaskT]:
        """What is left of this virtual epoch; the position after each task goes to `positions`."""
        start = self._position
        before, done = start.cursor, start.micro
        steps = self._announced(self._plan.steps(start.cursor))
        for step in range(start.step, self.steps):
            content, after = next(steps)
            tasks = self._tasks_of(content)
            for micro in range(done, len(tasks)):
                positions.append(
                    _Position(start.epoch, step, micro + 1, before)
                    if micro + 1 < len(tasks)
                    else _Position(start.epoch, step + 1, 0, after)
                )
                yield tasks[micro]
            before, done = after, 0

    def _announced(self, steps: Iterator[tuple[Any, Any]]) -> Iterator[tuple[Any, Any]]:
        """The steps, each announced before its turn."""
        waiting: deque[tuple[Any, Any]] = deque()
        for content, after in steps:
            if self._ahead is not None:
                self._ahead(content)
            waiting.append((content, after))
            if len(waiting) > self._lookahead:
                yield waiting.popleft()

    def _count(self, made: Made[BatchT]) -> None:
        self.num_samples += made.num_samples
        self.failures.update(reason for reason, _ in made.failed)
        failed = self.failures.total()
        if made.failed and failed > _TOLERATED * max(self.num_samples, _JUDGED_FROM):
            counts = ", ".join(f"{count} x {reason}" for reason, count in self.failures.items())
            raise RuntimeError(
                f"{failed} of {self.num_samples} samples could not be used ({counts}), more than "
                f"{_TOLERATED:.1%}: the data is broken. The last one: {made.failed[-1][1]}"
            )
