"""The `hardware:` and `profile:` blocks: shorthands, and what would be ignored."""

from __future__ import annotations

import pytest

from lit_eve.schema import ExperimentErrors, load
from lit_eve.schema.running import MACHINES
from tests.files import QUICKSTART


@pytest.mark.parametrize("machine", MACHINES)
def test_a_machine_sets_what_is_not_said_beside_it(machine: str) -> None:
    plain = load(QUICKSTART).hardware.model_dump()
    found = load(QUICKSTART, [f"hardware={{machine: {machine}, threads: 3}}"])
    expected = {**plain, **MACHINES[machine], "machine": machine, "threads": 3}
    assert found.hardware.model_dump() == expected
    assert "machine: " + machine in found.to_yaml().replace("'", "")


def test_a_value_beside_the_machine_is_stronger() -> None:
    hardware = load(QUICKSTART, ["hardware={machine: cluster, nodes: 4, devices: 2}"]).hardware
    assert (hardware.nodes, hardware.devices, hardware.strategy) == (4, 2, "hsdp")


@pytest.mark.parametrize(
    ("override", "message", "suggestion"),
    [
        ("hardware.machine=2xgpu", "2xgpu", "8xgpu"),
        ("hardware.micro_batch=0", "expected auto, largest, or a whole number of at least 1", ""),
        ("hardware={micro_batch: largest, accelerator: mps}", "nothing can be measured", "`auto`"),
        ("profile={steps: [15, 10]}", "there is no step from 15 to 10", "[10, 15]"),
        ("profile={steps: [4, 4]}", "there is no step from 4 to 4", "[4, 9]"),
    ],
)
def test_what_cannot_be_is_told_with_the_way_out(
    override: str, message: str, suggestion: str
) -> None:
    with pytest.raises(ExperimentErrors) as caught:
        load(QUICKSTART, [override])
    (problem,) = caught.value.problems
    assert message in str(problem)
    assert suggestion in str(problem)


def test_steps_that_no_stage_reaches_cannot_be_profiled() -> None:
    experiment = load(QUICKSTART)
    lengths = [f"stages.{name}.for=7 steps" for name in experiment.trained]
    changes = ["checkpoint.every=2", "evaluate.every=2", *lengths]
    assert load(QUICKSTART, [*changes, "profile={steps: [6, 9]}"]).profile is not None
    with pytest.raises(ExperimentErrors, match="no stage has a step 7"):
        load(QUICKSTART, [*changes, "profile={steps: [7, 9]}"])


def test_a_tiny_experiment_is_profiled_within_its_steps() -> None:
    small = load(QUICKSTART, ["profile={steps: [1, 5]}"], tiny=True)
    assert small.profile is not None
    assert small.profile.steps == (1, 3)


@pytest.mark.parametrize("size", ["2", "largest"])
def test_only_rows_of_tokens_come_in_micro_batches(size: str) -> None:
    file = QUICKSTART.parent / "tokenizer" / "vq_laptop.yaml"
    with pytest.raises(ExperimentErrors, match="parts of a batch"):
        load(file, [f"hardware.micro_batch={size}"])
