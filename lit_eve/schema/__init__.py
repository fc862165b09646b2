"""The language of the experiment files: torch-free, strict at every depth, explained in docstrings.

`load` is the way in; the classes of the other files are what it gives back.
"""

from lit_eve.schema.experiment import Experiment, TokenizerExperiment, VisionLanguageExperiment
from lit_eve.schema.loading import load, tiny
from lit_eve.schema.problems import ExperimentErrors, Problem

__all__ = [
    "Experiment",
    "ExperimentErrors",
    "Problem",
    "TokenizerExperiment",
    "VisionLanguageExperiment",
    "load",
    "tiny",
]
