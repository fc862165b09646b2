"""What recording costs a training: one line of ten metrics, beside a step of 50 ms.

Run:  uv run python -m benchmarks.tracking

The floor is the same line appended to a file by hand: JSON and one write. Medians of rounds taken
in turns, in one process.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

from benchmarks.measuring import row, timed
from lit_eve.tracking.spool import Spool

METRICS = {f"train/metric_{n}": 0.1234567 * n for n in range(10)}
CALLS = 1_000
ROUNDS = 9
STEP = 0.05
"""Seconds of a step that recording is held against."""


def main() -> None:
    """Print microseconds a call, the ratio to the floor, and the share of a step."""
    with tempfile.TemporaryDirectory() as folder:
        spool = Spool(Path(folder) / "tracking", rank=0)
        plain = os.open(Path(folder) / "plain.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        steps = iter(range(10**9))

        def recorded() -> None:
            for _ in range(CALLS):
                spool.metrics(METRICS, next(steps))

        def floor() -> None:
            for _ in range(CALLS):
                os.write(plain, (json.dumps({"s": next(steps), "v": METRICS}) + "\n").encode())

        taken = timed({"one line by hand": floor, "Spool.metrics": recorded}, ROUNDS)
        spool.close()
        os.close(plain)
    least = taken["one line by hand"][0]
    row("ten metrics", "µs a call", "to the floor", "of 50 ms")
    for name, (wall, _) in taken.items():
        call = wall / CALLS
        row(name, f"{call * 1e6:.1f}", f"{wall / least:.2f}", f"{call / STEP:.3%}")


if __name__ == "__main__":
    main()
