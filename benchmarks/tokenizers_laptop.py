"""Every kind of image tokenizer at a laptop's size, trained one after another: a table.

    uv run python -m benchmarks.tokenizers_laptop                       train what is missing, print
    uv run python -m benchmarks.tokenizers_laptop --write docs/tokenizers.md      and keep the table

Each is an ordinary run of `experiments/tokenizer/<name>_laptop.yaml`, found again under `--runs`,
so a table that was interrupted goes on where it stopped. Scores are those of the runs' own
examination: test pictures, averaged weights, hard codes, rounded to 8 bits.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from dataclasses import dataclass
from math import log2
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "experiments" / "tokenizer"
NAMES = ("dalle_dvae", "vq", "vqgan", "fsq", "lfq", "residual_vq", "multi_scale", "vae")
BEGIN, END = "<!-- the laptop table: written by benchmarks.tokenizers_laptop -->", "<!-- end -->"
HEAD = (
    "| file | codes of a 48 x 48 picture | bits | PSNR, scenes | PSNR, photos | SSIM | usage "
    "| perplexity | CPU s |"
)


@dataclass(frozen=True)
class Finished:
    """A run that ended."""

    name: str
    plan: dict[str, Any]
    summary: dict[str, Any]
    cpu_seconds: float
    """Of the whole run: start, data if it was missing, training, examination."""

    @property
    def row(self) -> str:
        """Its line of the table."""
        scores, codes, book = self.summary["scores"], self.plan["codes"], self.plan["num_codes"]
        cells = [
            f"`{self.name}_laptop.yaml`",
            f"{codes} of {book:,}" if book else "none",
            f"{codes * log2(book):,.0f}" if book else "",
            f"{scores['scenes/psnr']:.2f}",
            f"{scores['photos/psnr']:.2f}",
            f"{scores['ssim']:.3f}",
            _span(scores, "usage_of_ceiling", "{:.0%}"),
            _span(scores, "perplexity", "{:.0f}"),
            f"{self.cpu_seconds:.0f}",
        ]
        return f"| {' | '.join(cells)} |"


def _span(scores: dict[str, float], name: str, form: str) -> str:
    """A codebook's value, or the least and the most of its levels."""
    values = [value for key, value in scores.items() if key.split("/")[-1] == name]
    low, high = form.format(min(values, default=0)), form.format(max(values, default=0))
    return "" if not values else low if low == high else f"{low} to {high}"


def train(name: str, runs: Path, data: Path, changes: list[str]) -> None:
    """One run, in a process of its own."""
    file = str(FOLDER / f"{name}_laptop.yaml")
    places = ["--runs", str(runs), "--data", str(data)]
    command = [sys.executable, "-m", "lit_eve", "run", file, "tracking={type: none}", *changes]
    before = children_cpu()
    subprocess.run([*command, *places], check=True)
    cost = runs / f"{name}.cpu_seconds"
    cost.write_text(f"{children_cpu() - before:.0f}\n", encoding="utf-8")


def children_cpu() -> float:
    """Seconds of all processes this one has started, user and system."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def finished(name: str, runs: Path) -> Finished | None:
    """The newest finished run of a file."""
    for summary in sorted(runs.glob(f"{name.replace('_', '-')}-laptop/*/train/summary.json"))[::-1]:
        plan = json.loads((summary.parents[1] / "plan.json").read_text())
        cost = float((runs / f"{name}.cpu_seconds").read_text())
        return Finished(name, plan["train"], json.loads(summary.read_text()), cost)
    return None


def write(table: str, page: Path) -> None:
    """Put the table between its two marks."""
    before, rest = page.read_text(encoding="utf-8").split(BEGIN)
    page.write_text(f"{before}{BEGIN}\n\n{table}\n\n{END}{rest.split(END)[1]}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("names", nargs="*", default=NAMES, help="all of them if none")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--data", type=Path, default=Path("datasets"))
    parser.add_argument("--change", action="append", default=[], help="such as hardware.threads=1")
    parser.add_argument("--write", type=Path, help="page to keep the table in")
    options = parser.parse_args()
    for name in options.names:
        if finished(name, options.runs) is None:
            train(name, options.runs, options.data, options.change)
    found = [run for name in NAMES if (run := finished(name, options.runs)) is not None]
    table = "\n".join([HEAD, "| " + " | ".join(["---"] * 9) + " |", *(run.row for run in found)])
    print(table)
    if options.write is not None:
        write(table, options.write)


if __name__ == "__main__":
    main()
