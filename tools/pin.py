"""Write the exact versions of everything into pyproject.toml: `make pins`.

A lock file would name the index it was made with; plain `name==version` lines name none, and
`uv run` and `uv sync` obey them as constraints.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

PROJECT = Path(__file__).parent.parent / "pyproject.toml"
PINS = re.compile(r"constraint-dependencies = \[\n.*?\]\n", re.DOTALL)


def main() -> None:
    """Resolve anew within the bounds of the dependencies, and pin what came out."""
    text = PROJECT.read_text(encoding="utf-8")
    PROJECT.write_text(_with_pins(text, []), encoding="utf-8")
    subprocess.run(["uv", "lock", "--upgrade"], cwd=PROJECT.parent, check=True)
    flags = ["--all-groups", "--all-extras", "--no-hashes", "--no-annotate", "--no-header"]
    exported = subprocess.run(
        ["uv", "export", *flags, "--no-emit-project"],
        cwd=PROJECT.parent,
        check=True,
        capture_output=True,
        text=True,
    )
    PROJECT.write_text(_with_pins(text, exported.stdout.splitlines()), encoding="utf-8")


def _with_pins(text: str, pins: list[str]) -> str:
    lines = "".join(f'  "{pin.replace(chr(34), chr(39))}",\n' for pin in pins)
    return PINS.sub(lambda _: f"constraint-dependencies = [\n{lines}]\n", text)


if __name__ == "__main__":
    main()
