"""The language of the experiment files: torch-free, strict at every depth, explained in docstrings.

`load` is the way in; the classes of the other files are what it gives back.
"""

from lit_eve.schema.experiment import (
    ContrastiveExperiment,
    Experiment,
    TextExperiment,
    TokenizerExperiment,
    VisionLanguageExperiment,
)
from lit_eve.schema.loading import load, tiny
from lit_eve.schema.problems import ExperimentErrors, Problem

__all__ = [
    "ContrastiveExperiment",
    "Experiment",
    "ExperimentErrors",
    "Problem",
    "TextExperiment",
    "TokenizerExperiment",
    "VisionLanguageExperiment",
    "load",
    "tiny",
]
