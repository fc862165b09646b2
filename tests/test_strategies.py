from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import torch
from torch import nn

from lit_eve.checkpoints import read_weights, write_weights
from lit_eve.cli.scale import consolidate, submit
from lit_eve.models.language_model import LanguageModel
from lit_eve.models.text_model import TextModel
from lit_eve.running.directory import RUN_VARIABLE, create
from lit_eve.running.kinds.packed import adapt_decoder
from lit_eve.running.trainer import check_hardware
from lit_eve.schema import load
from lit_eve.schema.running import Hardware
from lit_eve.strategies import (
    Launch,
    ReplicatedStrategy,
    ShardedStrategy,
    Sharding,
    build_strategy,
    builds_on_meta,
    compile_blocks,
    detect_launch,
    gather_weights,
    usable_weights,
)
from lit_eve.strategies.blocks import unique_blocks
from lit_eve.strategies.machine import check_machine
from lit_eve.strategies.slurm import Job, job_script
from tests.files import QUICKSTART

TORCHRUN = {"TORCHELASTIC_RUN_ID": "x", "LOCAL_WORLD_SIZE": "4", "WORLD_SIZE": "8"}
SLURM = {"SLURM_NTASKS": "16", "SLURM_NTASKS_PER_NODE": "8", "SLURM_STEP_ID": "0"}


def test_auto_is_one_device_or_ddp() -> None:
    assert build_strategy("auto", 1) == "auto"
    assert isinstance(build_strategy("auto", 2), ReplicatedStrategy)
    assert isinstance(build_strategy("auto", 1, nodes=2), ReplicatedStrategy)


def test_ddp_waits_as_long_as_it_is_told() -> None:
    strategy = build_strategy("ddp", 2, timeout=timedelta(minutes=3), find_unused=True)
    assert isinstance(strategy, ReplicatedStrategy)
    assert strategy._timeout == timedelta(minutes=3)
    assert strategy._ddp_kwargs["find_unused_parameters"] is True


def test_sharding_options_reach_the_strategy() -> None:
    options = Sharding(
        gather_dtype=torch.bfloat16, sharded_checkpoints=False, reduce_every_micro_batch=True
    )
    strategy = build_strategy("fsdp", 8, sharding=options)
    assert isinstance(strategy, ShardedStrategy)
    assert strategy.replicate == 1
    assert strategy._policy.param_dtype == torch.bfloat16
    assert strategy._policy.reduce_dtype == torch.float32
    assert strategy._save_distributed_checkpoint is False
    assert strategy.reduce_every_micro_batch is True


def test_hsdp_keeps_one_copy_per_node_unless_told() -> None:
    for asked, copies in ((None, 4), (2, 2)):
        strategy = build_strategy("hsdp", 8, nodes=4, sharding=Sharding(replicate=asked))
        assert isinstance(strategy, ShardedStrategy)
        assert strategy.replicate == copies


def test_offloading_talks_to_the_host_too() -> None:
    strategy = build_strategy("fsdp", 8, sharding=Sharding(offload=True))
    assert isinstance(strategy, ShardedStrategy)
    assert strategy.process_group_backend == "cpu:gloo,cuda:nccl"


@pytest.mark.parametrize(
    ("build", "advice"),
    [
        (lambda: build_strategy("dpp", 2), "Choose one of auto, ddp, fsdp"),  # type: ignore[arg-type]
        (lambda: build_strategy("ddp", 2, sharding=Sharding()), "ddp shards nothing"),
        (lambda: build_strategy("auto", 1, find_unused=True), "auto would ignore it"),
        (lambda: build_strategy("fsdp", 2, find_unused=True), "fsdp would ignore it"),
        (lambda: Sharding(background=True, sharded_checkpoints=False), "by AtomicCheckpointIO"),
        (lambda: build_strategy("fsdp", 4, sharding=Sharding(replicate=2)), "use hsdp"),
        (lambda: build_strategy("hsdp", 8), "at least two copies"),
        (lambda: build_strategy("hsdp", 3, sharding=Sharding(replicate=2)), "share 3 processes"),
    ],
)
def test_an_option_that_would_be_ignored_is_an_error(build: Callable[[], Any], advice: str) -> None:
    with pytest.raises(ValueError, match=advice):
        build()


def test_a_process_alone_is_launched_by_lightning() -> None:
    assert detect_launch("auto", 1, available=3, environment={}) == Launch(3, 1, "lightning")
    assert detect_launch(2, 4, environment={}).world_size == 8


def test_torchrun_and_slurm_say_how_many_there_are() -> None:
    assert detect_launch("auto", environment=TORCHRUN) == Launch(4, 2, "torchrun")
    assert detect_launch(4, 2, environment=TORCHRUN | SLURM) == Launch(4, 2, "torchrun")
    assert detect_launch("auto", environment=SLURM) == Launch(8, 2, "slurm")
    assert detect_launch(1, environment=SLURM | {"SLURM_JOB_NAME": "bash"}).by == "lightning"


@pytest.mark.parametrize(
    ("devices", "nodes", "environment", "advice"),
    [
        (2, 1, TORCHRUN, "torchrun has started 4 processes a node.*devices to auto"),
        (4, 3, TORCHRUN, "runs on 2 nodes.*leave hardware.nodes out"),
        ("auto", 1, {"SLURM_NTASKS": "2"}, "Start it with `srun lit-eve run"),
    ],
)
def test_a_launcher_that_disagrees_is_an_error(
    devices: Any, nodes: int, environment: dict[str, str], advice: str
) -> None:
    with pytest.raises(ValueError, match=advice):
        detect_launch(devices, nodes, environment=environment)


@pytest.mark.parametrize(
    ("strategy", "environment", "meta"),
    [
        ("fsdp", {}, False),
        ("fsdp", {"RANK": "0", "LOCAL_RANK": "0"}, False),
        ("fsdp", {"RANK": "5", "LOCAL_RANK": "0"}, True),
        ("hsdp", {"LOCAL_RANK": "1"}, True),
        ("fsdp", {"LOCAL_RANK": "0", "NODE_RANK": "1"}, True),
        ("fsdp", {"SLURM_PROCID": "3"}, True),
        ("ddp", {"RANK": "5"}, False),
    ],
)
def test_only_rank_zero_of_a_sharded_run_needs_weights(
    strategy: str, environment: dict[str, str], meta: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert builds_on_meta(strategy) is meta


def llama() -> LanguageModel:
    return LanguageModel.llama(20, 16, depth=3, heads=2, ffn=32)


def test_the_blocks_of_a_decoder_are_its_layers_each_once() -> None:
    model = nn.ModuleDict({"language": llama(), "other": nn.Linear(2, 2)})
    found = unique_blocks(model)
    assert [type(block).__name__ for block in found] == ["LlamaDecoderLayer"] * 3


@pytest.mark.filterwarnings("ignore")  # torch warns about itself while it traces
def test_compiled_blocks_keep_names_and_results(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[nn.Module] = []

    def without_generating_code(self: nn.Module, mode: str | None) -> None:
        compiled.append(self)
        original(self, backend="aot_eager", mode=mode)

    original = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", without_generating_code)
    torch.manual_seed(0)
    model, x, positions = llama(), torch.randn(1, 4, 16), torch.arange(4)[None]
    names = list(model.state_dict())
    expected, _ = model.hidden_states(x, positions)
    assert compile_blocks(model) == len(compiled) == 3
    result, _ = model.hidden_states(x, positions)
    assert list(model.state_dict()) == names
    assert torch.allclose(result, expected, atol=1e-5)


def test_a_model_without_blocks_cannot_be_compiled_by_blocks() -> None:
    with pytest.raises(ValueError, match="Leave compile out"):
        compile_blocks(nn.Linear(2, 2))


def test_weights_of_a_whole_model_are_gathered_and_used_as_they_are() -> None:
    model = nn.Linear(2, 3)
    with usable_weights(model):
        gathered = gather_weights(model)
    assert set(gathered) == {"weight", "bias"}
    assert torch.equal(gathered["weight"], model.weight)


def test_a_job_script_runs_first_and_resumes_after_every_requeue() -> None:
    job = Job("eve-7b", hours=23.5, partition="gpu", account="lab")
    script = job_script(
        job,
        Launch(8, 4, "slurm"),
        ["lit-eve", "run", "my file.yaml", "a.b=1"],
        PurePosixPath("runs"),
    )
    lines = script.splitlines()
    assert lines[:12] == [
        "#!/bin/bash",
        "#SBATCH --job-name=eve-7b",
        "#SBATCH --nodes=4",
        "#SBATCH --ntasks-per-node=8",
        "#SBATCH --gpus-per-node=8",
        "#SBATCH --cpus-per-task=8",
        "#SBATCH --time=23:30:00",
        "#SBATCH --partition=gpu",
        "#SBATCH --account=lab",
        "#SBATCH --signal=USR1@180",
        "#SBATCH --requeue",
        "#SBATCH --open-mode=append",
    ]
    assert "    srun lit-eve run 'my file.yaml' a.b=1" in lines
    assert '    srun lit-eve resume "$LIT_EVE_RUN_DIRECTORY"' in lines


FAKE_CLUSTER = """
srun() { echo "srun $*" >> calls; return $CODE; }
scontrol() { echo "scontrol $*" >> calls; }
export SLURM_JOB_ID=17
"""


@pytest.mark.parametrize(
    ("code", "exists", "calls"),
    [
        (0, False, ["srun lit-eve run x.yaml"]),
        (143, False, ["srun lit-eve run x.yaml", "scontrol requeue 17"]),
        (0, True, ["srun lit-eve resume runs/job/slurm-17"]),
        (1, True, ["srun lit-eve resume runs/job/slurm-17"]),
    ],
)
def test_the_job_script_does_what_it_says_in_a_shell(
    code: int, exists: bool, calls: list[str], tmp_path: Any
) -> None:
    if exists:
        folder = tmp_path / "runs" / "job" / "slurm-17"
        folder.mkdir(parents=True)
        (folder / "experiment.yaml").touch()
    launch, command = Launch(1, 1, "slurm"), ["lit-eve", "run", "x.yaml"]
    script = job_script(Job("job", hours=1), launch, command, PurePosixPath("runs"))
    shell = f"CODE={code}\n{FAKE_CLUSTER}\n{script}"
    done = subprocess.run(["bash", "-c", shell], cwd=tmp_path, check=False)
    assert done.returncode == code
    assert (tmp_path / "calls").read_text().splitlines() == calls


@pytest.mark.parametrize(
    ("change", "advice"),
    [
        ({"name": "a b"}, "without spaces"),
        ({"hours": 0.01}, "more time"),
    ],
)
def test_an_impossible_job_is_refused(change: dict[str, Any], advice: str) -> None:
    with pytest.raises(ValueError, match=advice):
        replace(Job("job", hours=1.0), **change)


def test_a_fitting_machine_passes() -> None:
    check_machine("cpu", "ddp", Launch(2, 1, "lightning"), "32-true")


def test_everything_that_a_machine_lacks_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"there is no GPU.*fsdp cannot scale gradients"):
        check_machine("gpu", "fsdp", Launch(8, 1, "lightning"), "16-mixed")
    with pytest.raises(ValueError, match=r"no Apple GPU.*trains alone"):
        check_machine("mps", "ddp", Launch(2, 1, "lightning"), "32-true")
    with pytest.raises(ValueError, match="a CPU has no fp16 training"):
        check_machine("cpu", "auto", Launch(1, 1, "lightning"), "16-mixed")
    with pytest.raises(ValueError, match=r"hardware\.offload could save: take it out"):
        check_machine("auto", "fsdp", Launch(1, 1, "lightning"), "32-true", offload=True)


def test_a_file_for_another_machine_says_so_before_work_starts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ValueError, match=r"fit hardware\.machine: 8xgpu: there is no GPU"):
        check_hardware(load(QUICKSTART, ["hardware.machine=8xgpu"]))
    with pytest.raises(ValueError, match="hsdp needs at least two copies"):
        check_hardware(load(QUICKSTART, ["hardware={strategy: hsdp, replicate: 2}"]))


def test_a_text_model_is_recomputed_and_compiled_as_the_file_asks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compiled: list[nn.Module] = []
    monkeypatch.setattr(nn.Module, "compile", lambda self, mode=None: compiled.append(self))
    model = TextModel(llama())
    adapt_decoder(model, Hardware(compile=True, activation_checkpointing=True))
    assert len(compiled) == 3
    core: Any = model.language_model.model.model
    assert core.layers[0].gradient_checkpointing


def test_more_devices_than_there_are_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ValueError, match=r"8 devices are asked for and 2 are there"):
        check_machine("auto", "ddp", Launch(8, 1, "lightning"), "bf16-mixed")


def test_submit_writes_the_job_script_and_says_what_is_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = ["hardware={devices: 8, nodes: 2, strategy: hsdp}"]
    submit(QUICKSTART, changes, slurm=True, runs=tmp_path, data=tmp_path)
    said = capsys.readouterr().out
    script = tmp_path / "quickstart" / "job.sh"
    assert script.read_text() in said
    assert f"next  sbatch {script}" in said
    assert "#SBATCH --ntasks-per-node=8" in said
    assert 'srun lit-eve resume "$LIT_EVE_RUN_DIRECTORY"' in said
    with pytest.raises(ValueError, match=r"add hardware\.devices=8"):
        submit(QUICKSTART, [], slurm=True, runs=tmp_path)
    with pytest.raises(ValueError, match="add --slurm"):
        submit(QUICKSTART, [], runs=tmp_path)


def test_consolidate_writes_one_file_and_refuses_another_kind(tmp_path: Path) -> None:
    source = tmp_path / "all.safetensors"
    write_weights(source, {"model.a": torch.ones(2), "other": torch.zeros(1)})
    consolidate(source, tmp_path / "model.safetensors")
    assert list(read_weights(tmp_path / "model.safetensors")) == ["a"]
    with pytest.raises(ValueError, match=r"call it model\.safetensors"):
        consolidate(source, tmp_path / "model.pt")


def test_ranks_under_slurm_agree_on_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RUN_VARIABLE, "")
    monkeypatch.delenv(RUN_VARIABLE)  # what this leaves is taken away afterwards
    names = {"SLURM_NTASKS": "2", "SLURM_JOB_ID": "17", "SLURM_STEP_ID": "3"}
    for name, value in names.items():
        monkeypatch.setenv(name, value)
    assert create(tmp_path, "demo").id == "slurm-17-3"


def test_machines_that_nobody_has_started_are_an_error() -> None:
    experiment = load(QUICKSTART, ["hardware={devices: 2, nodes: 2}"])
    with pytest.raises(ValueError, match="torchrun or SLURM"):
        check_hardware(experiment)
