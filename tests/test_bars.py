"""Progress in lines, where there is no terminal."""

from __future__ import annotations

import io
import time

import pytest
from rich.console import Console

from lit_eve.running.bars import progress_line


def test_what_was_done_before_the_first_report_counts_for_the_rate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    said = io.StringIO()
    with progress_line(Console(file=said, width=120), "answering", "questions") as report:
        now += 4.0
        report(20, 20)
    assert "answering: 20/20 questions, 5.0 questions/s, 0 s left" in said.getvalue()
