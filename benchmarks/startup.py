"""How long `--help` and `check` take, beside an interpreter that does nothing.

Run:  uv run python benchmarks/startup.py

Medians of whole processes, interleaved in one run, since machines differ and drift.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

QUICKSTART = Path(__file__).parent.parent / "experiments" / "quickstart.yaml"
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "lit-eve --help": [sys.executable, "-m", "lit_eve", "--help"],
    "lit-eve check": [sys.executable, "-m", "lit_eve", "check", str(QUICKSTART)],
}
REPEATS = 9


def main() -> None:
    """Print medians in seconds and their ratio to the floor."""
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(REPEATS):
        for name, command in COMMANDS.items():
            began = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            seconds[name].append(time.perf_counter() - began)
    floor = statistics.median(seconds["python -c pass"])
    for name, values in seconds.items():
        median = statistics.median(values)
        print(f"{name:16} {median:6.3f} s   {median / floor:5.1f} x python -c pass")


if __name__ == "__main__":
    main()
