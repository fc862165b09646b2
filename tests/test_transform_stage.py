"""Stages that train nothing, and the folders that foundations leave, without any training."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from lit_eve import assemble
from lit_eve.checkpoints import read_weights, write_weights
from lit_eve.models.divide_and_conquer import Routed
from lit_eve.models.language_model import LanguageModel
from lit_eve.models.text_model import NO_LAYOUT
from lit_eve.running.directory import RunDirectory
from lit_eve.running.kinds import VisionLanguage
from lit_eve.running.kinds.foundations import TextOnly
from lit_eve.running.transform import transform_stage
from lit_eve.schema import TextExperiment, VisionLanguageExperiment, load
from lit_eve.schema.images import Images
from lit_eve.tracking import spool
from lit_eve_data.encoding.images import Square
from lit_eve_data.encoding.vocabulary import bytes_text, pretrained_text
from lit_eve_data.packing.lengths import SampleEncoder, TextEncoder

DIVIDED = """\
name: divided
model:
  type: encoder_free
  language_model: {type: llama, width: 16, depth: 1, heads: 2, divide: full}
  text: {type: bytes}
  patch_embedding: {type: eve_v2, patch: 8, pool: 2, width: 8}
datasets: {scenes: {type: scenes}}
stages:
  embed: {task: language, batch: 8, data: {scenes: 1}, for: 10 steps, train: {patch_embedding: 1},
          size: {type: square, edge: 32}}
  copy: {do: copy}
"""
ALONE = """\
name: alone
model:
  type: language_model
  language_model: {type: llama, width: 16, depth: 1, heads: 2}
  text: {type: bytes}
datasets: {scenes: {type: scenes}}
stages: {read: {task: text, batch: 8, data: {scenes: 1}, for: 1 steps, train: {language_model: 1}}}
"""


def silent() -> Console:
    return Console(file=io.StringIO())


@pytest.fixture
def divided(tmp_path: Path) -> VisionLanguage:
    file = tmp_path / "divided.yaml"
    file.write_text(DIVIDED)
    experiment = load(file)
    assert isinstance(experiment, VisionLanguageExperiment)
    text = bytes_text()
    layout = assemble.on_meta(experiment.model, text.num_tokens).layout
    encoder = SampleEncoder(text, assemble.cutter(experiment.model.images, layout))
    return VisionLanguage(experiment, RunDirectory(tmp_path), {}, silent(), encoder)


def test_copying_gives_visual_tokens_the_weights_that_text_has_now(
    divided: VisionLanguage,
) -> None:
    model = divided.model()
    routed = [module for module in model.modules() if isinstance(module, Routed)]
    with torch.no_grad():
        for module in routed:
            for parameter in module.text.parameters():
                parameter.add_(1.0)
    write_weights(divided.directory.weights("embed"), model.state_dict())
    summary = transform_stage(divided, "copy")
    after = read_weights(divided.directory.weights("copy"))
    assert divided.directory.finished("copy")
    assert summary["did"] == "copy"
    before = model.state_dict()
    for name, tensor in after.items():
        assert torch.equal(tensor, before[name.replace(".vision.", ".text.")]), name


def test_loading_takes_a_file_and_refuses_one_of_another_model(
    divided: VisionLanguage, tmp_path: Path
) -> None:
    weights = {name: tensor + 1 for name, tensor in divided.model().state_dict().items()}
    file = write_weights(tmp_path / "elsewhere.safetensors", weights)
    change = [f"stages.copy={{do: load, weights: {file}}}"]
    experiment = load(tmp_path / "divided.yaml", change)
    assert isinstance(experiment, VisionLanguageExperiment)
    loading = replace(divided, experiment=experiment)
    transform_stage(loading, "copy")
    after = read_weights(divided.directory.weights("copy"))
    assert all(torch.equal(tensor, weights[name]) for name, tensor in after.items())
    write_weights(file, {"something": torch.zeros(1)})
    with pytest.raises(ValueError, match="does not hold this model"):
        transform_stage(loading, "copy")


def test_other_processes_wait_for_the_first(
    divided: VisionLanguage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    assert spool.environment_rank() == 1
    monkeypatch.setattr("lit_eve.running.transform.PATIENCE", 0.0)
    with pytest.raises(RuntimeError, match="the first process has not finished stage copy"):
        transform_stage(divided, "copy")
    divided.directory.write_json("copy/summary.json", {"state": "finished", "did": "copy"})
    assert transform_stage(divided, "copy")["did"] == "copy"


def test_a_stage_sees_pictures_in_its_own_size(divided: VisionLanguage) -> None:
    assert divided.encoder_of("embed").cutter.size == Square(32)
    assert divided.encoder_of("copy") is divided.encoder


def test_a_decoder_is_left_as_transformers_reads_it(tmp_path: Path) -> None:
    (tmp_path / "alone.yaml").write_text(ALONE)
    experiment = load(tmp_path / "alone.yaml", [f"model.to={tmp_path / 'left'}"])
    assert isinstance(experiment, TextExperiment)
    text = bytes_text()
    encoder = TextEncoder(text, assemble.cutter(Images(), NO_LAYOUT))
    kind = TextOnly(experiment, RunDirectory(tmp_path), {}, silent(), encoder)
    model = kind.model()
    kind.leave("read", model)
    again = LanguageModel.pretrained(str(tmp_path / "left"))
    for name, tensor in again.state_dict().items():
        assert torch.equal(tensor, model.language_model.state_dict()[name]), name
    turns = [{"role": "user", "content": "3?"}, {"role": "assistant", "content": "4"}]
    assert pretrained_text(str(tmp_path / "left")).encode(turns, []) == text.encode(turns, [])
