"""What tests of whole runs and of tracking share."""

from __future__ import annotations

from pathlib import Path

import psutil

QUICKSTART = Path(__file__).parent.parent / "experiments" / "quickstart.yaml"
UNTRACKED = "tracking={type: none}"


def tracking_processes() -> list[str]:
    """Command lines of shippers and servers that this process has started and that still run."""
    lines = [" ".join(child.cmdline()) for child in psutil.Process().children(recursive=True)]
    return [line for line in lines if "lit_eve.tracking" in line or "mlflow" in line]
