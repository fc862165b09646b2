"""Progress bars for loops, without Lightning; plain lines where there is no terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

LINE_SECONDS = 10.0
"""Without a terminal, one line at most this often."""


class ProgressLine:
    """One bar: how far, how fast, how long still, and what was last measured."""

    def __init__(self, console: Console, label: str, total: int, unit: str) -> None:
        self.console, self.label, self.total, self.unit = console, label, total, unit
        self.started, self.first, self.printed = time.monotonic(), 0, 0.0
        self.bar: Progress | None = None
        if console.is_terminal:
            self.bar = Progress(
                TextColumn("[bold]{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=console,
            )
            self.task = self.bar.add_task(label, total=total, rate="", note="")
            self.bar.start()

    def resume_at(self, done: int) -> None:
        """Start counting the rate from `done`."""
        self.first, self.started = done, time.monotonic()

    def update(self, done: int, note: str = "") -> None:
        """Show that `done` of the total are through."""
        seconds = time.monotonic() - self.started
        rate = (done - self.first) / seconds if seconds > 0 else 0.0
        shown = f"{rate:.1f} {self.unit}/s"
        if self.bar is not None:
            self.bar.update(self.task, completed=done, total=self.total, rate=shown, note=note)
        elif seconds - self.printed >= LINE_SECONDS or done >= self.total:
            self.printed = seconds
            left = (self.total - done) / rate if rate else 0.0
            line = f"{self.label}: {done}/{self.total} {self.unit}, {shown}, {left:.0f} s left"
            self.console.print(f"{line}  {note}", highlight=False)

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self.bar is not None:
            self.bar.stop()


@contextmanager
def progress_line(console: Console, label: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """A bar for a loop: the value, called with how many are done and of how many, moves it."""
    line: ProgressLine | None = None
    entered = time.monotonic()

    def report(done: int, total: int) -> None:
        nonlocal line
        if line is None:  # nothing is shown of work that turns out to be done already
            line = ProgressLine(console, label, total, unit)
            line.started = entered
        line.total = total
        line.update(done)

    try:
        yield report
    finally:
        if line is not None:
            line.close()
