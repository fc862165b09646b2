"""The language of the experiment files: torch-free, strict at every depth, explained in docstrings.

`load` is the way in; the classes of the other files are what it gives back.
"""

from typing import Any

from lit_eve.schema.experiment import Experiment, TokenizerExperiment, VisionLanguageExperiment
from lit_eve.schema.loading import load, tiny
from lit_eve.schema.problems import ExperimentErrors, Problem


def json_schema() -> dict[str, Any]:
    """The JSON Schema of experiment files, from which editors complete, explain and warn."""
    from lit_eve.schema import editors  # reads the docstrings in the source: only when asked

    return editors.json_schema()


__all__ = [
    "Experiment",
    "ExperimentErrors",
    "Problem",
    "TokenizerExperiment",
    "VisionLanguageExperiment",
    "json_schema",
    "load",
    "tiny",
]
