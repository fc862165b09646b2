"""What all stages of a run share: experiment, directory, data, text, pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from lit_eve import assemble
from lit_eve.running.directory import RunDirectory
from lit_eve.running.progress import progress_line
from lit_eve.schema import VisionLanguageExperiment
from lit_eve_data.lengths import SampleEncoder


@dataclass(frozen=True)
class Setting:
    """What all stages of a run share."""

    experiment: VisionLanguageExperiment
    directory: RunDirectory
    datasets: Mapping[str, Path]
    encoder: SampleEncoder
    console: Console


def prepare(
    experiment: VisionLanguageExperiment, directory: RunDirectory, data: Path, console: Console
) -> Setting:
    """Datasets, text tokenizer and image cutter: what every stage reads through."""
    datasets: dict[str, Path] = {}
    for name, options in experiment.datasets.items():
        with progress_line(console, f"preparing {name}", "samples") as bar:
            datasets[name] = assemble.dataset(options, data, bar)
    text = assemble.text(experiment.model, datasets, directory.text)
    shape = assemble.on_meta(experiment.model, text.num_tokens)
    cutter = assemble.cutter(experiment.model.images, shape.layout)
    return Setting(experiment, directory, datasets, SampleEncoder(text, cutter), console)
