"""Whole runs on two processes: one folder, the weights of one, stop and resume as another."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from torch import Tensor

from lit_eve.checkpoints import read_weights
from tests import rank_runs
from tests.rank_pool import RankPool, free_port
from tests.rank_scenarios import difference
from tests.tiny_training import same

STAGES = ("align", "read")
# Measured 1.2e-7 after eight AdamW steps of 1e-2: float32 sums in another order. The alignment loss
# averaged over each rank's own images shows as 1.1e-2.
TOLERANCE = 1e-6
FORMS = {
    "alone": (
        *("hardware.devices=1", "hardware.strategy=auto", "hardware.micro_batch=auto"),
        "profile={steps: [1, 2]}",
    ),
    "ddp": ("hardware.devices=2", "hardware.strategy=ddp", "hardware.micro_batch=1"),
    "fsdp": ("hardware.devices=2", "hardware.strategy=fsdp", "hardware.micro_batch=1"),
    "hsdp": (
        *(
            "hardware={accelerator: cpu, threads: 1, devices: 4, strategy: hsdp, replicate: 2, "
            "micro_batch: largest}",
        ),
    ),
}
"""One process takes a step at once, more add up the gradients of rounds of one row each."""


@dataclass
class Runs:
    """Every form of run, once left alone and once stopped, made when somebody asks for it."""

    root: Path
    data: Path
    ranks: RankPool
    four_ranks: RankPool
    made: dict[tuple[str, bool], Path] = field(default_factory=dict)

    def __call__(self, form: str, stopped: bool = False) -> Path:
        """The folder of a run."""
        if (form, stopped) not in self.made:
            root = self.root / f"{form}-{stopped}"
            file = self.root / "experiment.yaml"
            self.on(form, rank_runs.start, file, root, self.data, FORMS[form], stopped)
            (self.made[form, stopped],) = root.glob("*/*")  # one run, not one for every rank
        return self.made[form, stopped]

    def resumed(self, form: str, as_form: str) -> Path:
        """A stopped run, gone on to the end."""
        folder = self.root / f"{form}-as-{as_form}"
        shutil.copytree(self(form, stopped=True), folder)
        self.on(as_form, rank_runs.resume, folder, self.data, FORMS[as_form])
        return folder

    def on(self, form: str, function: object, *arguments: object) -> None:
        if form == "alone":
            function(*arguments)  # type: ignore[operator]
        else:
            ranks = self.four_ranks if form == "hsdp" else self.ranks
            ranks.run(function, *arguments, timeout=300)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def runs(
    tmp_path_factory: pytest.TempPathFactory,
    datasets: Path,
    two_ranks: RankPool,
    four_ranks: RankPool,
) -> Runs:
    root = tmp_path_factory.mktemp("forms")
    (root / "experiment.yaml").write_text(rank_runs.EXPERIMENT)
    return Runs(root, datasets, two_ranks, four_ranks)


def weights(run: Path) -> dict[str, Tensor]:
    return {
        f"{stage}.{name}": tensor
        for stage in STAGES
        for name, tensor in read_weights(run / stage / "model.safetensors").items()
    }


@pytest.mark.parametrize("strategy", ["ddp", "fsdp", "hsdp"])
def test_processes_train_and_examine_what_one_does(strategy: str, runs: Runs) -> None:
    alone, together = runs("alone"), runs(strategy)
    assert difference(weights(alone), weights(together)) < TOLERANCE
    assert (alone / "align" / "trace-steps-1-2.json.gz").is_file()
    for stage in STAGES:
        summary = json.loads((together / stage / "summary.json").read_text())
        assert summary["state"] == "finished"
        expected = json.loads((alone / stage / "summary.json").read_text())
        measured = pytest.approx(expected["val/loss"], abs=2e-4, nan_ok=stage == "read")
        assert summary["val/loss"] == measured  # after the same step; written with four digits
        assert json.loads((together / "plan.json").read_text())[stage]["rounds"] > 1
        assert "all" in summary["scores"]


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_a_stopped_run_goes_on_bit_by_bit(strategy: str, runs: Runs) -> None:
    assert not (runs(strategy, stopped=True) / "align" / "summary.json").exists()
    assert same(weights(runs(strategy)), weights(runs.resumed(strategy, strategy)))


@pytest.mark.parametrize(("before", "after"), [("ddp", "alone"), ("alone", "ddp"), ("ddp", "fsdp")])
def test_a_run_goes_on_as_another(before: str, after: str, runs: Runs) -> None:
    resumed = runs.resumed(before, after)
    assert difference(weights(runs("alone")), weights(resumed)) < TOLERANCE
    strategy = FORMS[after][1]
    assert (
        strategy.replace("hardware.", "").replace("=", ": ")
        in (resumed / "experiment.yaml").read_text()
    )


def test_all_ranks_take_as_many_rows_as_fit_on_the_smallest_and_the_plan_keeps_it(
    runs: Runs,
) -> None:
    plan = json.loads((runs("hsdp") / "plan.json").read_text())
    for stage in STAGES:
        found = plan[stage]["micro_batch"]
        assert (found["rows"], found["peak"], found["limit"]) == (1, 100, 110)
        assert plan[stage]["rounds"] == 2  # 5 rows on 4 devices


def test_a_device_without_room_for_a_row_is_the_same_error_on_all_ranks(
    tmp_path: Path, runs: Runs, two_ranks: RankPool
) -> None:
    changes = ("hardware={accelerator: cpu, devices: 2, strategy: ddp, micro_batch: largest}",)
    file = runs.root / "experiment.yaml"
    told = two_ranks.run(rank_runs.no_room_on_the_last, file, tmp_path, runs.data, changes)
    assert told[0] == told[1]
    assert "stage align, in rows of 128 tokens: even a size of 1 needs more" in told[0]


def test_ranks_that_have_not_met_open_the_same_folder(tmp_path: Path, two_ranks: RankPool) -> None:
    first, second = two_ranks.run(rank_runs.named_before_there_is_a_group, tmp_path, free_port())
    assert first == second
