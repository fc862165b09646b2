"""Runs on several processes go on exactly, also as something else than they were."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from lit_eve.checkpoints import consolidate, newest, read_weights
from tests import rank_runs
from tests.checkpoints.saved import save
from tests.rank_pool import RankPool
from tests.rank_scenarios import PARTS, Plan, difference, train
from tests.tiny_training import same

# Another world size sums float32 numbers in another order; measured 2e-7 at most after six AdamW
# steps of 1e-2. Lost optimizer state shows as 1e-3 and more.
TOLERANCE = 1e-6

EXACT: dict[str, dict[str, Any]] = {
    "ddp": {"strategy": "ddp"},
    "fsdp, shards": {"strategy": "fsdp"},
    "fsdp, one file": {"strategy": "fsdp", "sharded_checkpoints": False},
    "fsdp, shards in the background": {"strategy": "fsdp", "background": True},
}


@pytest.mark.parametrize("kind", EXACT)
@pytest.mark.parametrize("step", [2, 3, 4])  # before, at and after the thaw
def test_resume_is_bit_equal(kind: str, step: int, tmp_path: Path, two_ranks: RankPool) -> None:
    plan = Plan(parts=PARTS, dropout=0.3, **EXACT[kind])
    straight = two_ranks.run(train, plan)
    two_ranks.run(train, replace(plan, directory=tmp_path, crash=step))
    resumed = two_ranks.run(train, replace(plan, directory=tmp_path))
    assert [rank.divergence for rank in resumed] == [0.0, 0.0]
    assert same(straight[0].weights, resumed[0].weights)


FORMS: dict[str, tuple[int, dict[str, Any]]] = {
    "alone": (1, {}),
    "ddp": (2, {"strategy": "ddp"}),
    "fsdp, shards": (2, {"strategy": "fsdp"}),
    "fsdp, one file": (2, {"strategy": "fsdp", "sharded_checkpoints": False}),
}


@pytest.mark.parametrize(
    ("before", "after"),
    [(one, other) for one in FORMS for other in FORMS if one != other],
)
def test_a_run_goes_on_with_another_world_size_and_strategy(
    before: str, after: str, tmp_path: Path, two_ranks: RankPool
) -> None:
    def run(form: str, **changes: Any) -> dict[str, Any]:
        ranks, options = FORMS[form]
        plan = Plan(parts=PARTS, **options, **changes)
        return (train(plan) if ranks == 1 else two_ranks.run(train, plan)[0]).weights

    straight = run("alone")
    run(before, directory=tmp_path, crash=4)
    assert difference(straight, run(after, directory=tmp_path)) < TOLERANCE


def test_shards_consolidate_to_the_weights_that_training_ended_with(
    tmp_path: Path, two_ranks: RankPool
) -> None:
    ended = two_ranks.run(train, Plan(strategy="fsdp", directory=tmp_path))[0].weights
    checkpoint = newest(tmp_path)
    assert checkpoint is not None
    assert checkpoint.is_dir()
    assert same(read_weights(checkpoint), ended)
    file = consolidate(checkpoint, tmp_path / "model.safetensors", prefix="model.")
    assert same({f"model.{name}": value for name, value in load_file(file).items()}, ended)


def test_one_rank_hashes_and_the_other_takes_its_word(tmp_path: Path, two_ranks: RankPool) -> None:
    save(tmp_path, 100)
    os.truncate(save(tmp_path, 200), 50)
    found = two_ranks.run(rank_runs.found_and_loaded, tmp_path)
    assert found == [("step-00000100.ckpt", 1), ("step-00000100.ckpt", 0)]


@pytest.mark.parametrize("name", ["__1_0.distcp", ".metadata", "meta.pt"])
def test_a_damaged_folder_of_shards_is_reported_and_the_one_before_it_is_used(
    name: str, tmp_path: Path, two_ranks: RankPool
) -> None:
    plan = Plan(strategy="fsdp", directory=tmp_path)
    straight = two_ranks.run(train, replace(plan, directory=None))
    two_ranks.run(train, replace(plan, crash=4))
    damaged = tmp_path / "step-00000004.ckpt" / name
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    messages: list[str] = []
    assert newest(tmp_path, messages.append) == tmp_path / "step-00000003.ckpt"
    assert name in messages[0]
    assert same(two_ranks.run(train, plan)[0].weights, straight[0].weights)
