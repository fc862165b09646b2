"""Tables for descriptions, which MLflow shows as markdown."""

from __future__ import annotations

from collections.abc import Sequence


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows as a table; the first one is its head."""
    lines = ["| " + " | ".join(_plain(cell) for cell in row) + " |" for row in rows]
    lines.insert(1, "|" + " --- |" * len(rows[0]))
    return "\n".join(lines)


def _plain(cell: str) -> str:
    return cell.replace("|", "/").replace("\n", " ")
