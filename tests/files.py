"""Files and changes that tests of whole runs share."""

from __future__ import annotations

from pathlib import Path

QUICKSTART = Path(__file__).parent.parent / "experiments" / "quickstart.yaml"
UNTRACKED = "tracking={type: none}"
