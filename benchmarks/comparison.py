"""EVE beside the baselines: every `experiments/baselines/*_laptop.yaml`, trained twice over.

    uv run python -m benchmarks.comparison                    all of it, half an hour of a core
    uv run python -m benchmarks.comparison --modes samples    equal data only
    uv run python -m benchmarks.comparison --show             the tables of what has run already

Two comparisons: equal data, the length that the files give; and equal arithmetic, where every
system may spend what the dearest one spends on that data, by `lit-eve plan`'s training FLOPs of a
sample measured on the data. A run is a system, a number of steps and a seed, and is not trained
again once it is finished; several processes of this script share the work. `budget.json` in the
folder of runs says once for all of them how long each system trains.

Latency is the vision path alone, pixels to the tokens that the decoder reads: median CPU seconds of
one thread (what it takes on an idle core, however busy the machine is), all systems in turns in one
process.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from resource import RUSAGE_CHILDREN as CHILDREN
from resource import RUSAGE_SELF, getrusage
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from rich.console import Console

from benchmarks.measuring import timed
from benchmarks.studies import verdict
from lit_eve.models.vision_language import VisionLanguageModel
from lit_eve.planning.vision_language import VisionLanguagePlan
from lit_eve.running.directory import RUN_VARIABLE, RunDirectory, write_atomically
from lit_eve.running.kinds import VisionLanguage
from lit_eve.running.run import quiet, start
from lit_eve.schema import VisionLanguageExperiment, load
from lit_eve_data.batches import PackedImages

FOLDER = Path(__file__).parents[1] / "experiments" / "baselines"
STAGE = "read"
SYSTEMS: Mapping[str, str] = {
    "EVE": "eve",
    "EVE v2": "eve_v2",
    "Fuyu": "fuyu",
    "LLaVA": "llava",
    "LLaVA-1.5": "llava_1_5",
    "BLIP-2": "blip2",
    "Flamingo": "flamingo",
    "Honeybee": "honeybee",
    "Florence-VL": "florence_vl",
}
"""The first is what the others are held against."""
MODES: Mapping[str, str] = {"samples": "equal data", "flops": "equal training arithmetic"}
SCORES: Mapping[str, str] = {"count": "count, %", "colour": "colour, %", "loss": "held-out loss"}
BATCHES = (1, 16)


@dataclass(frozen=True)
class System:
    """What one system costs and how long it trains."""

    parameters: int
    tokens: int
    """Visual tokens of an image."""
    vision_flops: int
    sample_flops: int
    """Of training."""
    samples_per_step: float
    steps: Mapping[str, int]
    """Length of the training in each mode."""


@dataclass(frozen=True)
class Result:
    """What one run reached."""

    count: float
    colour: float
    loss: float
    cpu: float
    """Seconds from the file to the scores: data, training and examination, imports left out."""


@dataclass(frozen=True)
class Job:
    """One run."""

    system: str
    steps: int
    seed: int

    def folder(self, runs: Path) -> Path:
        return runs / f"comparison-{SYSTEMS[self.system]}-{self.steps}-{self.seed}"

    def result(self, runs: Path) -> Result | None:
        cost = self.folder(runs) / "cost.json"
        for file in sorted(self.folder(runs).glob(f"*/{STAGE}/summary.json")):
            told: dict[str, Any] = json.loads(file.read_text())
            if told.get("state") == "finished" and "scores" in told:
                cpu = json.loads(cost.read_text())["cpu"] if cost.is_file() else float("nan")
                scores = told["scores"]
                return Result(scores["count"], scores["colour"], told["val/loss"], cpu)
        return None

    def train(self, runs: Path, data: Path) -> None:
        """On one thread, validated at its end, told to no tracker."""
        words = (
            f"name={self.folder(runs).name}",
            f"seed={self.seed}",
            f"stages.{STAGE}.for={self.steps} steps",
            f"evaluate.every={self.steps} steps",
            "evaluate.answers=0",
            "hardware.threads=1",
            "tracking={type: none}",
        )
        file = FOLDER / f"{SYSTEMS[self.system]}_laptop.yaml"
        before, silent = _cpu(), Console(file=io.StringIO())
        start(file, words, tiny=False, runs=runs, data=data, first=None, console=silent)
        del os.environ[RUN_VARIABLE]  # or the next run would be taken for a rank of this one
        cost = json.dumps({"cpu": round(_cpu() - before, 1)})
        write_atomically(self.folder(runs) / "cost.json", cost)


def _cpu() -> float:
    """Seconds of this process and those it has started and seen end."""
    return sum(used.ru_utime + used.ru_stime for used in map(getrusage, (RUSAGE_SELF, CHILDREN)))


def prepared(system: str, data: Path) -> VisionLanguage:
    """A system with its data and text tokenizer there."""
    experiment = load(FOLDER / f"{SYSTEMS[system]}_laptop.yaml", ())
    assert isinstance(experiment, VisionLanguageExperiment)
    with tempfile.TemporaryDirectory() as folder:
        return VisionLanguage.prepare(
            experiment, RunDirectory(Path(folder)), data, Console(stderr=True)
        )


def budget(kinds: Mapping[str, VisionLanguage]) -> dict[str, System]:
    """How long every system trains, so that data or arithmetic is equal."""
    plans: dict[str, VisionLanguagePlan] = {}
    for system, kind in kinds.items():
        plan = kind.plan(STAGE, 1)
        assert isinstance(plan, VisionLanguagePlan)
        plans[system] = plan
    spent = max(_step_flops(plan) * _steps(plan) for plan in plans.values())
    return {
        system: System(
            plan.total,
            plan.visual_tokens,
            plan.vision_flops,
            plan.sample_flops,
            round(_samples(plan), 3),
            {"samples": _steps(plan), "flops": round(spent / _step_flops(plan))},
        )
        for system, plan in plans.items()
    }


def _steps(plan: VisionLanguagePlan) -> int:
    assert plan.steps is not None  # the data is there
    return plan.steps


def _samples(plan: VisionLanguagePlan) -> float:
    return (plan.samples or 0) / _steps(plan)


def _step_flops(plan: VisionLanguagePlan) -> float:
    return plan.sample_flops * _samples(plan)


def agreed(systems: Mapping[str, System], file: Path) -> None:
    """Write the budget down, or see that it is the one that is written down.

    Raises:
        ValueError: if files or code have changed since the first run.
    """
    mine = json.loads(json.dumps({name: asdict(system) for name, system in systems.items()}))
    if not file.is_file():
        write_atomically(file, json.dumps(mine, indent=1) + "\n")
    elif json.loads(file.read_text()) != mine:
        raise ValueError(
            f"{file} gives other lengths than the experiment files now do: runs of both would be "
            "mixed in one table. Choose another folder with --runs."
        )


def share_out(jobs: Sequence[Job], runs: Path, data: Path) -> None:
    """Train what is missing; what another process is at is left to it, and waited for."""
    missing = [job for job in jobs if job.result(runs) is None]
    for patience in (0, -1):
        for job in missing:
            lock = FileLock(runs / f".{job.folder(runs).name}.lock", timeout=patience)
            with suppress(Timeout), lock:
                if job.result(runs) is None:
                    print(f"{job.system}, {job.steps} steps, seed {job.seed}", file=sys.stderr)
                    job.train(runs, data)


def latencies(kinds: Mapping[str, VisionLanguage], repeats: int) -> dict[int, dict[str, float]]:
    """CPU seconds from the pixels of a batch to the tokens that the decoder reads, by batch."""
    torch.set_num_threads(1)
    random = np.random.default_rng(0)
    pictures = [random.integers(0, 256, (32, 32, 3), np.uint8) for _ in range(max(BATCHES))]
    models = {system: kind.model().eval() for system, kind in kinds.items()}
    taken: dict[int, dict[str, float]] = {}
    for batch in BATCHES:
        looks: dict[str, Callable[[], None]] = {}
        for system, kind in kinds.items():
            images = kind.encoder.cutter.cut(pictures[:batch])
            looks[system] = partial(_look, models[system], images)
        taken[batch] = {system: cpu for system, (_, cpu) in timed(looks, repeats).items()}
    return taken


@torch.no_grad()
def _look(model: VisionLanguageModel, images: PackedImages) -> None:
    model.look(images)


def table(
    mode: str, systems: Mapping[str, System], results: Mapping[str, Sequence[Result]]
) -> Iterator[str]:
    """What was reached in one mode, as Markdown, and which scores differ from the first row's."""
    heads = ["system", "steps", "samples", "GFLOP", "seeds", *SCORES.values(), "CPU s"]
    yield _line(heads)
    yield _line(["---", *["---:"] * (len(heads) - 1)])
    for name, found in results.items():
        system, steps = systems[name], systems[name].steps[mode]
        samples = steps * system.samples_per_step
        cells = [f"{steps}", f"{samples:,.0f}", f"{samples * system.sample_flops / 1e9:.0f}"]
        scores = [_shown([getattr(r, s) for r in found], s != "loss") for s in SCORES]
        yield _line([name, *cells, f"{len(found)}", *scores, f"{mean(r.cpu for r in found):.0f}"])
    first, *others = results or [""]
    for score in SCORES if others else ():
        yield ""
        for other in others:
            pair = [[getattr(r, score) for r in results[name]] for name in (first, other)]
            yield f"- {score}, {other} against {first}: {verdict(*pair)}"


def costs(systems: Mapping[str, System], taken: Mapping[int, Mapping[str, float]]) -> Iterator[str]:
    """What every system costs, as Markdown."""
    heads = ["system", "parameters", "tokens an image", "vision, MFLOP", "training, MFLOP a sample"]
    for batch in taken:
        heads += [f"latency of {batch}, ms", "of EVE's"]
    yield _line(heads)
    yield _line(["---", *["---:"] * (len(heads) - 1)])
    for name, system in systems.items():
        cells = [f"{system.parameters / 1e3:,.0f} k", f"{system.tokens}"]
        cells += [f"{flops / 1e6:.1f}" for flops in (system.vision_flops, system.sample_flops)]
        for times in taken.values():
            cells += [f"{1e3 * times[name]:.2f}", f"{times[name] / next(iter(times.values())):.2f}"]
        yield _line([name, *cells])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _shown(values: Sequence[float], share: bool) -> str:
    scale, form = (100, ".1f") if share else (1, ".3f")
    text = f"{scale * mean(values):{form}}"
    return f"{text} ± {scale * stdev(values):{form}}" if len(values) > 1 else text


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--runs", type=Path, default=Path("runs/comparison"))
    parser.add_argument("--data", type=Path, default=Path("datasets"))
    parser.add_argument("--repeats", type=int, default=40, help="of each latency")
    parser.add_argument("--show", action="store_true", help="train nothing")
    options = parser.parse_args()
    quiet()
    options.runs.mkdir(parents=True, exist_ok=True)
    with FileLock(options.runs / ".budget.lock"):  # data is made once, lengths are agreed on
        kinds = {system: prepared(system, options.data) for system in SYSTEMS}
        systems = budget(kinds)
        agreed(systems, options.runs / "budget.json")
    jobs = {
        mode: {
            name: [Job(name, system.steps[mode], seed) for seed in range(options.seeds)]
            for name, system in systems.items()
        }
        for mode in options.modes
    }
    if not options.show:
        every = (job for rows in jobs.values() for row in rows.values() for job in row)
        share_out(sorted(set(every), key=lambda job: job.seed), options.runs, options.data)
    for mode, rows in jobs.items():
        found = {name: [job.result(options.runs) for job in row] for name, row in rows.items()}
        print(f"\n{MODES[mode]}\n")
        done = {name: [r for r in row if r is not None] for name, row in found.items()}
        print("\n".join(table(mode, systems, {name: row for name, row in done.items() if row})))
    print("\ncosts\n")
    print("\n".join(costs(systems, latencies(kinds, options.repeats))))


if __name__ == "__main__":
    main()
