from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lit_eve.schema import VisionLanguageExperiment, load, tiny
from lit_eve.schema.datasets import Scenes

Write = Callable[..., Path]


def test_every_file_shrinks_to_a_right_experiment(sample: Path, write: Write) -> None:
    small = load(sample, tiny=True)
    assert small == load(write(small.to_yaml(), "tiny.yaml"))
    assert small.name == f"{load(sample).name}-tiny"


def test_what_is_tiny_cannot_shrink(sample: Path) -> None:
    small = load(sample, tiny=True)
    assert tiny(small) == small


def test_a_tiny_experiment_needs_no_network_and_no_gpu(
    sample: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = load(sample, tiny=True)
    text = small.to_yaml()
    for word in ("hf:", "s3:", "oc.env", "pretrained", "litdata", "http"):
        assert word not in text
    assert all(isinstance(dataset, Scenes) for dataset in small.datasets.values())
    assert (small.hardware.accelerator, small.hardware.devices) == ("cpu", 1)


def test_a_tiny_experiment_keeps_stages_tasks_parts_and_types(sample: Path) -> None:
    whole, small = load(sample), load(sample, tiny=True)
    assert list(small.stages) == list(whole.stages)
    for name, stage in small.trained.items():
        assert stage.task == whole.trained[name].task
        assert stage.previous == whole.trained[name].previous
        assert set(stage.train) == {part.partition(".")[0] for part in whole.trained[name].train}
    if isinstance(whole, VisionLanguageExperiment):
        assert isinstance(small, VisionLanguageExperiment)
        assert small.model.images.size.type == whole.model.images.size.type
        for part in ("patch_embedding", "connector", "fusion", "teacher"):
            one, other = getattr(small.model, part, None), getattr(whole.model, part, None)
            assert (one is None) == (other is None)
            assert part == "teacher" or getattr(one, "type", "") == getattr(other, "type", "")
        assert (small.loss.alignment is None) == (whole.loss.alignment is None)
    else:
        assert small.to_yaml().count("type:") == whole.to_yaml().count("type:")


def test_a_tiny_stage_is_a_few_steps_of_a_few_samples(sample: Path) -> None:
    for stage in load(sample, tiny=True).trained.values():
        assert str(stage.budget) == "6 steps"
        assert stage.batch == 8
        assert all(part.thaw < 6 for part in stage.train.values())


def test_schedules_keep_their_share_of_the_training(write: Write, quickstart: Path) -> None:
    # 90,000 samples in batches of 128 are 703 steps, of which 352 are half.
    small = load(
        quickstart,
        ["loss.language={schedule: linear, from: 0, to: 1, over: 352}"],
        tiny=True,
    )
    assert "over: 50.1%" in small.to_yaml()


def test_data_keeps_its_subsets_where_scenes_have_them(quickstart: Path, write: Write) -> None:
    small = load(quickstart, tiny=True)
    assert small.trained["align"].data == {"scenes.captions": 1.0}


def test_subsets_that_scenes_lack_become_the_whole(sample: Path) -> None:
    if sample.stem == "large":
        small = load(sample, tiny=True)
        assert small.trained["prealign"].data == {"captions": 1.5}


def test_a_tiny_experiment_runs_on_the_hardware_that_was_asked_for(sample: Path) -> None:
    small = load(sample, ["hardware.devices=2", "hardware.strategy=ddp"], tiny=True)
    assert (small.hardware.devices, small.hardware.strategy) == (2, "ddp")
    assert small.hardware.threads == 1
