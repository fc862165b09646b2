"""What a search finds: `experiments/search/gumbel_temperature.yaml`, proposing against drawing.

    uv run python -m benchmarks.search_gains            TPE and random, three seeds each
    uv run python -m benchmarks.search_gains --show     what has been searched already

Every search has the file's number of trials, its pruning and its data; none is told the default
first. The default is trained once a seed as a trial of its own. A search that was interrupted goes
on. Scores are held-out, at the trials' own length: what is better after 75 steps need not be later.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

import optuna
from optuna.trial import TrialState

from benchmarks.measuring import row
from lit_eve.tracking.spool import EVENTS_FILE, read_events

FILE = Path(__file__).parents[1] / "experiments" / "search" / "gumbel_temperature.yaml"
SAMPLERS = ("tpe", "random")


@dataclass(frozen=True)
class Found:
    """What one search came to."""

    best: float
    """PSNR in dB."""
    after_half: float
    """The best of the first half of its trials."""
    pruned: int
    minutes: float


def searched(sampler: str, seed: int, trials: int, root: Path, workers: int) -> float:
    """Run a search, or what is left of it; minutes it took."""
    folder = root / f"{sampler}-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    changes = [
        f"name=gains-{sampler}-{seed}",
        f"seed={seed}",
        f"search.seed={seed}",
        f"search.sampler={sampler}",
        f"search.trials={trials}",
        "search.first=[]",
        f"search.storage={_storage(folder)}",
        *(["search.startup=null"] if sampler == "random" else []),
        "tracking={type: none}",
        f"hardware.threads={1 if workers > 1 else 2}",
    ]
    places = ["--runs", str(folder / "runs"), "--data", str(root / "data")]
    command = [sys.executable, "-m", "lit_eve", "search", str(FILE), *changes]
    began = time.monotonic()
    with (folder / "search.log").open("ab") as log:
        subprocess.run(
            [*command, "--workers", str(workers), *places], check=True, stdout=log, stderr=log
        )
    minutes = (time.monotonic() - began) / 60
    (folder / "minutes").write_text(f"{minutes:.2f}")
    return minutes


def found(sampler: str, seed: int, root: Path) -> Found | None:
    """Read a search that ended."""
    folder = root / f"{sampler}-{seed}"
    if not (folder / "minutes").is_file():
        return None
    study = optuna.load_study(study_name=f"gains-{sampler}-{seed}", storage=_storage(folder))
    trials = study.get_trials(deepcopy=False)
    values = [t.value for t in trials if t.state == TrialState.COMPLETE and t.value is not None]
    early = [t.value for t in trials[: len(trials) // 2] if t.state == TrialState.COMPLETE]
    pruned = sum(trial.state == TrialState.PRUNED for trial in trials)
    best_early = max((value for value in early if value is not None), default=float("nan"))
    return Found(max(values), best_early, pruned, float((folder / "minutes").read_text()))


def default(seed: int, root: Path, train: bool) -> float | None:
    """PSNR of the file's own setting, trained as long as a trial; None if it has not been."""
    runs = root / f"default-{seed}"
    if not any(runs.glob("*/*/train/summary.json")):
        if not train:
            return None
        changes = [f"seed={seed}", "search=null", "tracking={type: none}", "hardware.threads=1"]
        places = ["--runs", str(runs), "--data", str(root / "data")]
        command = [sys.executable, "-m", "lit_eve", "run", str(FILE), *changes, *places]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    [stage] = runs.glob("*/*/train")
    events = [event for event, _ in read_events(stage / "tracking" / EVENTS_FILE)]
    values = [e["v"]["val/psnr"] for e in events if e["k"] == "metrics" and "val/psnr" in e["v"]]
    return float(values[-1])


def _storage(folder: Path) -> str:
    return f"sqlite:///{folder.absolute()}/search.db"


def _spread(values: Sequence[float]) -> str:
    return f"{mean(values):.2f}" + (f" ± {stdev(values):.2f}" if len(values) > 1 else "")


def main() -> None:
    """Search, and print who found what."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--into", type=Path, default=Path("runs/search_gains"))
    parser.add_argument("--show", action="store_true", help="train nothing")
    options = parser.parse_args()
    seeds = range(options.seeds)
    if not options.show:
        for seed in seeds:
            default(seed, options.into, train=True)
            for sampler in SAMPLERS:
                if found(sampler, seed, options.into) is None:
                    searched(sampler, seed, options.trials, options.into, options.workers)
    row("PSNR, dB", "seed", "best", "of first half", "pruned", "minutes")
    known = [default(seed, options.into, train=False) for seed in seeds]
    bests: dict[str, list[float]] = {"default": [value for value in known if value is not None]}
    if bests["default"]:
        row("default", "all", _spread(bests["default"]))
    for sampler in SAMPLERS:
        bests[sampler] = []
        for seed in seeds:
            result = found(sampler, seed, options.into)
            if result is None:
                continue
            bests[sampler].append(result.best)
            told = (f"{result.best:.2f}", f"{result.after_half:.2f}", str(result.pruned))
            row(sampler, str(seed), *told, f"{result.minutes:.1f}")
        if bests[sampler]:
            row(sampler, "all", _spread(bests[sampler]))


if __name__ == "__main__":
    main()
