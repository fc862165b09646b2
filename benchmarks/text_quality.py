"""What learning to see does to language: perplexity of held-out texts after every stage of a run.

    uv run python -m benchmarks.text_quality RUN [RUN ...] [--plot FILE]

The runs' decoders started from `experiments/foundation/language_model.yaml`; its test texts are
read without any picture, by that decoder as it was and by every stage's. The plot has the last
stage of every run, and in one row those whose names differ in the last number alone.
"""

from __future__ import annotations

import argparse
import io
import tempfile
from collections.abc import Iterator
from math import nan
from pathlib import Path

from rich.console import Console

from benchmarks.studies import dots
from lit_eve.inference.opening import open_run
from lit_eve.models.language_model import LanguageModel
from lit_eve.models.text_model import TextModel
from lit_eve.models.vision_language import VisionLanguageModel
from lit_eve.running.directory import RunDirectory, find
from lit_eve.running.kinds.foundations import TextOnly
from lit_eve.schema import TextExperiment, load
from lit_eve_data.encoding.vocabulary import pretrained_text
from lit_eve_data.packing.lengths import TextEncoder

FOUNDATION = Path(__file__).parents[1] / "experiments" / "foundation" / "language_model.yaml"


def reader(data: Path, samples: int, folder: str, scratch: Path) -> TextOnly:
    """What measures perplexity, with the foundation's own tokenizer."""
    experiment = load(FOUNDATION, [f"evaluate.samples={samples}"])
    assert isinstance(experiment, TextExperiment)
    console = Console(file=io.StringIO())
    kind = TextOnly.prepare(experiment, RunDirectory(scratch), data, console)
    encoder = TextEncoder(pretrained_text(folder), kind.encoder.cutter)
    return TextOnly(experiment, kind.directory, kind.datasets, console, encoder)


def perplexities(run: RunDirectory, kind: TextOnly, data: Path) -> Iterator[tuple[str, float]]:
    """Of every stage of a run that has weights."""
    for name in load(run.experiment_file).stages:
        if run.weights(name).is_file():
            _, _, model = open_run(run, name, data, Console(file=io.StringIO()))
            assert isinstance(model, VisionLanguageModel)
            yield name, kind.examine("read", TextModel(model.language_model))["perplexity"]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("run", nargs="+", help="a run's folder, id or experiment")
    parser.add_argument("--foundation", default="foundation/language_model")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--data", type=Path, default=Path("datasets"))
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    print("| run | decoder | perplexity of texts |\n| --- | --- | ---: |")
    with tempfile.TemporaryDirectory() as scratch:
        kind = reader(options.data, options.samples, options.foundation, Path(scratch))
        before = TextModel(LanguageModel.pretrained(options.foundation)).eval()
        print(f"| | before seeing | {kind.examine('read', before)['perplexity']:.4f} |", flush=True)
        last: dict[str, list[float]] = {}
        for name in options.run:
            run, value = find(name, options.runs), nan
            for stage, value in perplexities(run, kind, options.data):
                print(f"| {run.path.parent.name} | after {stage} | {value:.4f} |", flush=True)
            last.setdefault(run.path.parent.name.rpartition("-")[0], []).append(value)
    if options.plot is not None:
        print(f"plot: {dots(last, 'perplexity of texts', options.plot, 'log')}")


if __name__ == "__main__":
    main()
