"""Each silent failure of Lightning and torch on several processes, and the guard that ends it.

All that are known, each with the test of its guard; those without a file are here. With the guard
broken, the tests of all of them and of the alignment loss over unequal ranks were seen red, each
for its own reason.

1.  DDP forgets what thaws later: test_thawing_in_silence_is_an_error
2.  shards overwritten in place mix steps: test_a_rank_killed_while_saving_costs_one_interval
3.  one file goes through `$TMPDIR`: checkpoints: ..._never_goes_through_the_temporary_...
4.  moments of thawed parts are dropped: test_resume_distributed: test_resume_is_bit_equal[3, 4]
5.  FSDP2 fixes its dtypes once: test_fsdp_needs_its_units_refreshed_when_blocks_thaw
6.  parameters outside every shard: test_a_parameter_outside_the_shards_is_an_error
7.  raw memory from the meta device: test_only_rank_zero_needs_the_weights
8.  a mesh that shards nothing: test_fsdp_shards_and_every_rank_has_its_own_data
9.  LitData before the processes meet: data/test_breaks: test_11
10. the epoch after a resumed one is short: data/test_breaks: test_6, test_7
11. no random state, data from the start: test_resume: test_resume_at_any_step_is_bit_equal
12. a sampler that shuffles, put into every DataLoader: test_lightning_puts_no_sampler_into_a_run
13. `weights_only=False` is dropped: checkpoints: test_code_in_a_checkpoint_is_never_run
14. text only on one rank: test_models_distributed: [text only on one rank]
15. SIGTERM to one rank hangs: test_a_signal_to_one_rank_stops_all_after_the_same_step
16. `self.log` on every step: test_architecture: test_no_training_step_logs_by_lightning
17. moments go to other parameters: test_runs_distributed: ..._goes_on_as_another[ddp-fsdp]
18. the root stays whole after validation: test_runs_distributed: ..._what_one_does[fsdp]
"""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lit_eve.checkpoints import newest
from tests import rank_faults, rank_runs
from tests.rank_pool import RankPool
from tests.rank_scenarios import Plan, difference, train
from tests.rank_tasks import EveTask, PackedRows
from tests.tiny_training import fit, same, weights


def test_lightnings_ddp_drifts_apart_in_silence_when_parts_thaw(two_ranks: RankPool) -> None:
    """The reason for the guard; if this fails, Lightning has learnt it."""
    for apart, message in two_ranks.run(rank_faults.thaw_in_silence, False):
        assert apart > 1e-3
        assert message == ""


def test_thawing_in_silence_is_an_error(two_ranks: RankPool) -> None:
    for _, message in two_ranks.run(rank_faults.thaw_in_silence, True):
        assert "on_requires_grad_changed()" in message


def test_a_parameter_outside_the_shards_is_an_error(two_ranks: RankPool) -> None:
    for message in two_ranks.run(rank_faults.parameter_outside_the_shards):
        assert "late" in message
        assert "in no shard" in message


def test_fsdp_needs_its_units_refreshed_when_blocks_thaw(two_ranks: RankPool) -> None:
    """The first half is the reason for the second; it was pytorch #186998."""
    refused = two_ranks.run(rank_faults.thaw_blocks_under_a_gather_dtype, False)
    assert all("dtype" in message for message in refused)
    assert two_ranks.run(rank_faults.thaw_blocks_under_a_gather_dtype, True) == ["", ""]


def test_fsdp_shards_and_every_rank_has_its_own_data(two_ranks: RankPool) -> None:
    first, second = two_ranks.run(rank_faults.share_of_this_rank)
    assert (first.local_rows, second.local_rows, first.rows) == (3, 3, 6)
    assert first.data == {"num_replicas": 2, "rank": 0}
    assert second.data == {"num_replicas": 2, "rank": 1}


def test_lightning_puts_no_sampler_into_a_run(tmp_path: Path, two_ranks: RankPool) -> None:
    file = tmp_path / "experiment.yaml"
    file.write_text(rank_runs.EXPERIMENT)
    in_order = [float(number) for number in range(12)]
    assert two_ranks.run(rank_faults.order_of_a_run, file, tmp_path) == [in_order] * 2


def test_accumulation_reduces_once_a_step(two_ranks: RankPool) -> None:
    assert two_ranks.run(rank_faults.reductions, False) == [2, 2]
    assert two_ranks.run(rank_faults.reductions, True) == [6, 6]


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize(("sharded", "rank"), [(False, 0), (True, 0), (True, 1)])
def test_a_full_disk_on_one_rank_is_the_same_error_on_all(
    sharded: bool, rank: int, background: bool, tmp_path: Path, two_ranks: RankPool
) -> None:
    results = two_ranks.run(rank_faults.save_with_a_full_disk, tmp_path, sharded, background, rank)
    for message, step in results:
        assert "step-00000002.ckpt is whole" in message
        assert "make room" in message
        assert step == 3
    assert newest(tmp_path, report=pytest.fail) == tmp_path / "step-00000002.ckpt"
    assert not list(tmp_path.glob(".*"))


def test_a_rank_killed_while_saving_costs_one_interval(tmp_path: Path, two_ranks: RankPool) -> None:
    plan = Plan(strategy="fsdp", directory=tmp_path)
    straight = two_ranks.run(train, replace(plan, directory=None))
    with pytest.raises(AssertionError, match="rank 1: exit code 9"):
        two_ranks.run(train, replace(plan, callbacks=(rank_faults.Die(),)), timeout=30)
    assert newest(tmp_path, report=pytest.fail) == tmp_path / "step-00000003.ckpt"
    assert same(two_ranks.run(train, plan)[0].weights, straight[0].weights)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_signal_to_one_rank_stops_all_after_the_same_step(
    rank: int, tmp_path: Path, two_ranks: RankPool
) -> None:
    # Sent during the fourth step; the vote is read one step later.
    assert two_ranks.run(rank_faults.signal_on_one_rank, rank, tmp_path) == [(5, "SIGTERM")] * 2
    checkpoint = newest(tmp_path)
    assert checkpoint is not None
    assert checkpoint.name == "step-00000005.ckpt"
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("fused", [False, True])
def test_a_bad_gradient_on_one_rank_skips_the_step_on_all(
    sharded: bool, fused: bool, tmp_path: Path, two_ranks: RankPool
) -> None:
    results = two_ranks.run(rank_faults.bad_gradient_on_one_rank, sharded, fused, tmp_path)
    assert results == [(1, 0.0, True)] * 2


def test_only_rank_zero_needs_the_weights(two_ranks: RankPool) -> None:
    torch.manual_seed(3)
    alone = EveTask()
    fit(alone, [], loader=PackedRows, max_steps=3)
    (meta, trained, apart), (other_meta, nothing, _) = two_ranks.run(rank_faults.built_on_meta)
    assert (meta, other_meta, apart, nothing) == (False, True, 0.0, {})
    assert difference(weights(alone), trained) < 1e-6


def test_a_sharded_model_can_be_called_outside_its_steps(two_ranks: RankPool) -> None:
    (whole, expected), _ = two_ranks.run(rank_faults.called_outside_a_step, False)
    (sharded, trained), (other, _) = two_ranks.run(rank_faults.called_outside_a_step, True)
    assert len(whole) == 2
    assert torch.allclose(torch.stack(sharded), torch.stack(whole))
    assert torch.equal(torch.stack(sharded), torch.stack(other))
    assert difference(expected, trained) < 1e-6


def test_speed_is_that_of_all_ranks(two_ranks: RankPool) -> None:
    first, second = two_ranks.run(rank_faults.watched)
    assert first == second
    # Four rows a step on two ranks, two samples a row.
    assert first["samples_per_second"] == pytest.approx(8 * first["steps_per_second"])


def test_ranks_draw_their_own_dropout_and_keep_the_same_weights(two_ranks: RankPool) -> None:
    (one, draw), (other, other_draw) = two_ranks.run(rank_faults.dropout_masks)
    assert same(one, other)
    assert draw != other_draw
