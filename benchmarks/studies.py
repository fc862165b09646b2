"""EVE's claims at a laptop's size: the same file in several arms, over seeds, and what differs.

    uv run python -m benchmarks.studies                 all that is declared, about two hours
    uv run python -m benchmarks.studies sizes --seeds 3 one study
    uv run python -m benchmarks.studies --show          tables and plots of what has run already

Every arm is a file of `experiments/studies/` with overrides; every seed of it a run in `--runs`,
done in a process of its own and not again once it is finished. Arms of a study have equal data,
steps and batches. The verdict is a rule: arms differ if their means do by more than twice the
standard error of the difference.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import sqrt
from pathlib import Path
from statistics import mean, stdev
from typing import Any

EXPERIMENTS = Path(__file__).parents[1] / "experiments" / "studies"
NO_TEACHER = (
    "model.patch_alignment=null",
    "model.teacher=null",
    "loss.alignment=null",
    *(f"stages.{stage}.train.patch_alignment=null" for stage in ("align", "learn")),
    *(f"stages.{stage}.task=language" for stage in ("align", "learn")),
)
CLIP_LEARNS = ("stages.read.train.vision_encoder=2e-4",)
"""A fifth of the others' rate, as those do who tune a trained encoder."""
RANDOM_ENCODER = (
    "stages.read.train.vision_encoder=1e-3",
    "model.vision_encoder={type: vit, width: 96, depth: 3, heads: 4, patch: 8, image: 64, "
    "layers: [-2]}",
)
"""The shape of `foundation/teacher`, from nothing: what its training is worth."""


@dataclass(frozen=True)
class Study:
    """A question, the arms that answer it, and the score that tells them apart."""

    question: str
    file: str
    arms: Mapping[str, Sequence[str]]
    """Overrides of the file; the first arm is what the others are held against."""
    stage: str
    score: str
    """Of the stage's summary: a held-out accuracy, or `val/loss`."""
    pairs: bool = False
    """Whether every second arm is held against the one before it, not all against the first."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Of arms that have a file of their own."""


def _rates(*rates: str) -> dict[str, Sequence[str]]:
    """With stage 1, and with its samples given to stage 2, at several rates."""
    arms: dict[str, Sequence[str]] = {}
    for rate in rates:
        train = f"stages.learn.train.language_model={rate}"
        arms[f"stage 1, then {rate}"] = (train,)
        arms[f"no stage 1, {rate}"] = (train, "stages.align=null", "stages.learn.for=15k samples")
    return arms


def _budgets(*thousands: int) -> dict[str, Sequence[str]]:
    """With and without the teacher, for several amounts of data."""
    arms: dict[str, Sequence[str]] = {}
    for amount in thousands:
        length = f"stages.learn.for={amount}k samples"
        arms[f"teacher, {amount}k"] = (length,)
        arms[f"no teacher, {amount}k"] = (length, *NO_TEACHER)
    return arms


STUDIES: Mapping[str, Study] = {
    "sizes": Study(
        "Free size and ratio against a square of at least the same area.",
        "sizes.yaml",
        {
            "own size": (),
            "square 48": ("model.images.size={type: square, edge: 48}",),
        },
        "read",
        "read",
    ),
    "alignment": Study(
        "Patch alignment with a teacher on and off, for two amounts of data.",
        "alignment.yaml",
        _budgets(6, 18),
        "learn",
        "read",
        pairs=True,
    ),
    "prealignment": Study(
        "Stage 1, led by the frozen decoder, on and off, at three learning rates of the decoder.",
        "prealignment.yaml",
        _rates("7e-4", "2e-3", "6e-3"),
        "learn",
        "read",
        pairs=True,
    ),
    "encoders": Study(
        "Three patch embeddings and a small CLIP on the same data and batches.",
        "encoders.yaml",
        {
            "EVE v2": (),
            "EVE": ("model.patch_embedding={type: eve, patch: 8, pool: 2, width: 128, heads: 8}",),
            "Fuyu": ("model.patch_embedding={type: linear, patch: 16}",),
            "CLIP, frozen": (),
            "CLIP, learning": CLIP_LEARNS,
            "its like from random": RANDOM_ENCODER,
        },
        "read",
        "read",
        files={
            arm: "encoders_teacher.yaml"
            for arm in ("CLIP, frozen", "CLIP, learning", "its like from random")
        },
    ),
}


def run(key: str, arm: str, seed: int, runs: Path) -> float:
    """The score of one arm with one seed, trained if it has not been yet."""
    study = STUDIES[key]
    name = f"study-{key}-{_slug(arm)}-{seed}"
    found = _score(runs / name, study)
    if found is None:
        words = [f"name={name}", f"seed={seed}", "hardware.threads=1", *study.arms[arm]]
        file = EXPERIMENTS / study.files.get(arm, study.file)
        command = [sys.executable, "-m", "lit_eve", "run", str(file), *words]
        subprocess.run([*command, "--runs", str(runs)], check=True, stdout=subprocess.DEVNULL)
        found = _score(runs / name, study)
        assert found is not None  # the run would have failed
    return found


def _score(folder: Path, study: Study) -> float | None:
    for summary in sorted(folder.glob(f"*/{study.stage}/summary.json")):
        told: dict[str, Any] = json.loads(summary.read_text())
        if told.get("state") == "finished":
            return float(told["scores"].get(study.score, told.get(study.score, float("nan"))))
    return None


def _slug(arm: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in arm)


def table(key: str, scores: Mapping[str, Sequence[float]]) -> Iterator[str]:
    """The study as Markdown."""
    study = STUDIES[key]
    yield f"| {study.question.rstrip('.')} | {study.score}, mean | each seed |"
    yield "| --- | ---: | --- |"
    for arm, values in scores.items():
        yield f"| {arm} | {mean(values):.3f} | {', '.join(f'{value:.3f}' for value in values)} |"


def verdict(first: Sequence[float], other: Sequence[float]) -> str:
    """Whether two arms differ, in words."""
    if min(len(first), len(other)) < 2:
        return "one seed says nothing"
    difference = mean(other) - mean(first)
    error = sqrt(stdev(first) ** 2 / len(first) + stdev(other) ** 2 / len(other))
    what = f"{difference:+.3f} ± {error:.3f}"
    if abs(difference) <= 2 * error:
        return f"no difference beyond the seeds' ({what})"
    return f"{'higher' if difference > 0 else 'lower'} ({what})"


def dots(scores: Mapping[str, Sequence[float]], label: str, file: Path, scale: str) -> Path:
    """Every seed a dot, every arm a row, its mean a line; `scale`: linear or log."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 0.6 + 0.4 * len(scores)))
    for row, (_, values) in enumerate(scores.items()):
        axes.plot(values, [row] * len(values), "o", alpha=0.7)
        axes.plot([mean(values)] * 2, [row - 0.25, row + 0.25], "k-")
    axes.set_yticks(range(len(scores)), list(scores))
    axes.invert_yaxis()
    axes.set_xscale(scale)
    axes.set_xlabel(label)
    figure.tight_layout()
    figure.savefig(file, dpi=110)
    pyplot.close(figure)
    return file


def show(key: str, scores: Mapping[str, Sequence[float]], pictures: Path | None) -> None:
    print("\n".join(table(key, scores)))
    arms = list(scores)
    pairs = [(arms[0], arm) for arm in arms[1:]]
    if STUDIES[key].pairs:
        pairs = list(zip(arms[::2], arms[1::2], strict=False))
    for first, other in pairs:
        print(f"{other} against {first}: {verdict(scores[first], scores[other])}")
    if pictures is not None:
        label = f"{STUDIES[key].stage}: {STUDIES[key].score}"
        print(f"plot: {dots(scores, label, pictures / f'study_{key}.png', 'linear')}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("studies", nargs="*", choices=[*STUDIES, []], help="all of them if none")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--runs", type=Path, default=Path("runs/studies"))
    parser.add_argument("--pictures", type=Path, help="folder for plots")
    parser.add_argument("--show", action="store_true", help="train nothing")
    options = parser.parse_args()
    for key in options.studies or STUDIES:
        scores: dict[str, list[float]] = {arm: [] for arm in STUDIES[key].arms}
        for seed in range(options.seeds):
            for arm in scores:
                if options.show:
                    folder = options.runs / f"study-{key}-{_slug(arm)}-{seed}"
                    found = _score(folder, STUDIES[key])
                    scores[arm] += [] if found is None else [found]
                else:
                    scores[arm].append(run(key, arm, seed, options.runs))
        done = {arm: values for arm, values in scores.items() if values}
        if done:
            show(key, done, options.pictures)
        else:
            print(f"{key}: nothing has run yet")


if __name__ == "__main__":
    main()
