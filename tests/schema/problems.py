"""What is wrong with a file, for tests that expect it to be."""

from __future__ import annotations

from pathlib import Path

import pytest

from lit_eve.schema import ExperimentErrors, Problem, load


def problems(file: Path, *overrides: str) -> list[Problem]:
    with pytest.raises(ExperimentErrors) as caught:
        load(file, overrides)
    return list(caught.value.problems)
