"""How many rows fit: the search, the process that makes dry steps, and what a run makes of it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_eve.running import dry_steps, micro_batch
from lit_eve.running.directory import RunDirectory
from lit_eve.running.dry_steps import DryRun, environment, serve
from lit_eve.running.kinds import Kind, kind_of
from lit_eve.running.kinds.packed import Packed
from lit_eve.running.micro_batch import DrySteps, Found
from lit_eve.schema import load
from lit_eve.strategies import Launch
from lit_eve.strategies.batch_size import MARGIN, largest_that_fits, predict
from tests import rank_runs


@settings(deadline=None)
@given(
    base=st.integers(0, 400),
    linear=st.integers(1, 30),
    square=st.floats(0, 0.5),
    step=st.sampled_from([1, 8, 64]),
)
def test_the_largest_batch_is_found_and_only_the_second_try_may_run_out(
    base: int, linear: int, square: float, step: int
) -> None:
    limit = 100_000
    tried: list[int] = []

    def peak(size: int) -> int:
        return int(base + linear * size + square * size * size)

    def measure(size: int) -> int:
        tried.append(size)
        return peak(size)

    found = largest_that_fits(measure, limit, smallest=step, step=step)
    allowed = limit * (1 - MARGIN)
    assert found % step == 0
    assert found in tried
    assert all(peak(size) <= limit for size in tried if size != 2 * step)
    assert peak(found) <= allowed < peak(found + step) + linear * step


def test_nobody_asks_beyond_the_largest_size() -> None:
    assert largest_that_fits(lambda size: size, 10**9, smallest=64, step=64, largest=1000) == 960


def test_six_percent_of_the_memory_stay_free() -> None:
    assert largest_that_fits(lambda size: size, 1000, smallest=1) == 940


@pytest.mark.parametrize("fits", range(1, 13))
def test_sizes_that_run_out_are_no_larger_than_the_answer(fits: int) -> None:
    """What was kept before a step ran out tells nothing: here it is the same for all sizes."""
    measure = {size: 10 if size <= fits else None for size in range(1, 13)}
    assert largest_that_fits(measure.__getitem__, 100, smallest=1, largest=12) == fits


def test_one_size_that_does_not_fit_says_what_to_change() -> None:
    with pytest.raises(
        ValueError, match=r"needs 2\.00 GiB, and there are 1\.00.*activation_checkpointing"
    ):
        largest_that_fits(lambda size: 2**31, 2**30, smallest=8)
    with pytest.raises(ValueError, match=r"needs more, and there are 1\.00 GiB"):
        largest_that_fits(lambda size: None, 2**30, smallest=8)


def test_a_prediction_follows_a_line_or_a_parabola() -> None:
    assert predict({2: 10, 4: 14}, 8) == 22
    assert predict({1: 1, 2: 4, 4: 16}, 8) == 64
    assert predict({1: 10, 2: 12, 4: 14}, 8) == 18  # bends down: the line is the safe side


RUN = DryRun("run", "data", "align", devices=2, nodes=1, local_rank=1)
PROCESS = """
import os, sys
print('{"limit": 1000}', flush=True)
for line in sys.stdin:
    if int(line) > 4:
        os.kill(os.getpid(), 9)
    if int(line) == 3:
        raise SystemExit("no such layer")
    print('{"peak": %d}' % (100 * int(line)), flush=True)
"""


@pytest.fixture
def dry(monkeypatch: pytest.MonkeyPatch) -> Iterator[DrySteps]:
    monkeypatch.setattr(DrySteps, "command", (sys.executable, "-c", PROCESS))
    with DrySteps(RUN) as steps:
        yield steps


def test_a_process_that_the_system_ends_has_run_out_and_another_takes_its_place(
    dry: DrySteps,
) -> None:
    assert dry.limit == 1000
    assert [dry.peak(rows) for rows in (1, 2, 8, 4)] == [100, 200, None, 400]


def test_dry_steps_that_fail_otherwise_say_why(dry: DrySteps) -> None:
    with pytest.raises(RuntimeError, match=r"micro_batch as a number(.|\n)*no such layer"):
        dry.peak(3)


def test_a_dry_process_is_rank_zero_of_the_same_run_wherever_it_stands() -> None:
    given = {"PATH": "/bin", "RANK": "5", "SLURM_PROCID": "5", "TORCHELASTIC_RESTART_COUNT": "1"}
    found = environment(RUN, given)
    assert {"PATH", "TORCHELASTIC_RUN_ID"} <= found.keys()
    assert not {"SLURM_PROCID", "TORCHELASTIC_RESTART_COUNT"} & found.keys()
    assert (found["RANK"], found["LOCAL_RANK"], found["WORLD_SIZE"]) == ("0", "1", "2")


def test_what_was_found_holds_for_all_stages_until_the_hardware_is_another(
    tmp_path: Path, datasets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, spread = rank_runs.EXPERIMENT, Launch(2, 1, "lightning")

    def find(*names: str, **hardware: Any) -> dict[str, Found]:
        words = "".join(f"{key}: {value}, " for key, value in hardware.items())
        now = f"hardware: {{micro_batch: largest, devices: 2, strategy: ddp, {words}"
        directory = RunDirectory(tmp_path)
        directory.experiment_file.write_text(text.replace("hardware: {", now))
        experiment = load(directory.experiment_file)
        kind: Kind[Any, Any] = kind_of(experiment).prepare(
            experiment, directory, datasets, rank_runs.silent()
        )
        return micro_batch.find(kind, names, spread, datasets)

    monkeypatch.setattr(micro_batch, "DrySteps", rank_runs.ScriptedSteps)
    found = find("align", "read")
    assert {name: size.rows for name, size in found.items()} == {"align": 1, "read": 1}
    entries = {name: {micro_batch.KEY: asdict(size)} for name, size in found.items()}
    RunDirectory(tmp_path).write_json("plan.json", entries)
    monkeypatch.setattr(rank_runs.ScriptedSteps, "room", (990, 990))
    assert find("read") == found
    assert {name: size.rows for name, size in find("read", compile="true").items()} == {"read": 3}


@pytest.mark.parametrize(("strategy", "devices"), [("ddp", 2), ("hsdp", 4)])
def test_dry_steps_need_no_other_rank_and_go_on_after_running_out(
    strategy: str,
    devices: int,
    tmp_path: Path,
    datasets: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    copies = ", replicate: 2" if strategy == "hsdp" else ""
    hardware = f"hardware: {{strategy: {strategy}{copies}, devices: {devices}, "
    text = rank_runs.EXPERIMENT.replace("hardware: {", hardware)
    (tmp_path / "experiment.yaml").write_text(text)
    run = DryRun(str(tmp_path), str(datasets), "align", devices, nodes=1, local_rank=1)
    for name, value in environment(run, {}).items():
        monkeypatch.setenv(name, value)
    heaviest, trained = Packed.heaviest, []

    def too_heavy(self: Packed[Any, Any], name: str, rows: int) -> Any:
        if rows > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        batch = heaviest(self, name, rows)
        trained.append(batch.segment_ids.shape)
        return batch

    monkeypatch.setattr(Packed, "heaviest", too_heavy)
    monkeypatch.setattr(dry_steps, "limit_threads", lambda hardware: None)
    answers: list[Any] = []
    try:
        serve(run, ["2", "1"], answers.append)
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    assert answers[0]["limit"] > 0
    assert answers[1] == {"peak": None}
    assert answers[2]["peak"] > 0
    assert trained == [(1, 128)]
