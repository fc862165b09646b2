"""What was exported comes back: to be asked, and to be trained on."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lit_eve.checkpoints import read_weights
from lit_eve.hub.export import export
from lit_eve.importing.exported import import_exported, read_exported
from lit_eve.inference.opening import open_assistant, open_tokenizer, vision_language
from lit_eve.models.vision_language import VisionLanguageModel
from lit_eve.running.directory import RunDirectory
from lit_eve.running.transform import transform_stage
from lit_eve.schema import VisionLanguageExperiment, load
from lit_eve_data.encoding.text import ChatText
from lit_eve_data.encoding.vocabulary import bytes_text, train_text
from tests.hub.made import MODELS, decoder_folder, run_of

GO_ON = """\
extends: imported/experiment.yaml
stages:
  more: {task: language, batch: 8, data: {scenes: 1}, for: 9 steps, train: {language_model: 1e-3}}
"""


def begun(file: Path, folder: Path) -> VisionLanguageExperiment:
    """A run of an experiment whose first stage loads weights, up to that stage's end."""
    experiment = load(file)
    assert isinstance(experiment, VisionLanguageExperiment)
    kind = vision_language(experiment, RunDirectory(folder))
    transform_stage(kind, next(iter(experiment.stages)))
    return experiment


@pytest.mark.parametrize("name", ["eve_tied", "eve_v2_untied_divided", "cross_attention"])
def test_an_export_comes_back_as_a_run_with_the_same_weights(name: str, tmp_path: Path) -> None:
    directory, model = run_of(tmp_path / "run", MODELS[name])
    export(directory, tmp_path / "out")
    import_exported(tmp_path / "out", tmp_path / "back")
    shutil.rmtree(tmp_path / "out")
    assistant = open_assistant(RunDirectory(tmp_path / "back"))
    back = assistant.model.state_dict()
    assert back.keys() == model.state_dict().keys()
    assert all(torch.equal(back[key], tensor) for key, tensor in model.state_dict().items())
    assert assistant.encoder.text.about() == bytes_text().about()


def test_an_image_tokenizer_comes_back(tmp_path: Path) -> None:
    block = (
        "{type: tokenizer, likelihood: l2, discriminator: {width: 8, layers: 1}, "
        "encoder: {type: convolutional, width: 8, multipliers: [1, 1], blocks: 1, norm: none}, "
        "quantizer: {type: fsq, levels: [5, 4]}}"
    )
    directory, model = run_of(tmp_path / "run", block, "tokenizer")
    export(directory, tmp_path / "out")
    import_exported(tmp_path / "out", tmp_path / "back")
    back = open_tokenizer(RunDirectory(tmp_path / "back")).state_dict()
    wanted = model.state_dict()
    assert back.keys() == {key for key in wanted if not key.startswith("discriminator.")}
    assert all(torch.equal(tensor, wanted[key]) for key, tensor in back.items())


def test_a_pretrained_decoder_comes_back_with_its_words(tmp_path: Path) -> None:
    words = train_text(["one two one two three"] * 9, 270)
    decoder = decoder_folder(tmp_path / "decoder", words)
    block = (
        f"{{type: encoder_free, language_model: {{type: pretrained, from: {decoder}}},"
        " patch_embedding: {type: linear, patch: 16}}"
    )
    directory, model = run_of(tmp_path / "run", block)
    export(directory, tmp_path / "out")
    shutil.rmtree(decoder)
    import_exported(tmp_path / "out", tmp_path / "imported")
    (tmp_path / "more.yaml").write_text(GO_ON)
    begun(tmp_path / "more.yaml", tmp_path / "next")
    weights = read_weights(RunDirectory(tmp_path / "next").weights("imported"))
    assert all(torch.equal(weights[key], tensor) for key, tensor in model.state_dict().items())
    assert ChatText.load(tmp_path / "next" / "text").about() == words.about()


def test_a_new_experiment_goes_on_from_an_import(tmp_path: Path) -> None:
    directory, model = run_of(tmp_path / "run", MODELS["eve_tied"])
    export(directory, tmp_path / "out")
    import_exported(tmp_path / "out", tmp_path / "imported")
    (tmp_path / "more.yaml").write_text(GO_ON)
    experiment = begun(tmp_path / "more.yaml", tmp_path / "next")
    assert list(experiment.stages) == ["imported", "more"]
    assert experiment.source_of("more") == "imported"
    assert isinstance(model, VisionLanguageModel)
    weights = read_weights(RunDirectory(tmp_path / "next").weights("imported"))
    assert all(torch.equal(weights[key], tensor) for key, tensor in model.state_dict().items())


def test_a_stage_loads_an_exported_folder_as_it_is(tmp_path: Path) -> None:
    directory, model = run_of(tmp_path / "run", MODELS["eve_tied"])
    export(directory, tmp_path / "out")
    text = directory.experiment_file.read_text()
    stages = f"stages:\n  start: {{do: load, weights: {tmp_path / 'out'}}}\n"
    (tmp_path / "next.yaml").write_text(text.partition("stages:")[0] + stages)
    begun(tmp_path / "next.yaml", tmp_path / "next")
    weights = read_weights(RunDirectory(tmp_path / "next").weights("start"))
    assert all(torch.equal(weights[key], tensor) for key, tensor in model.state_dict().items())


def test_weights_that_read_other_words_are_refused(tmp_path: Path) -> None:
    directory, _ = run_of(tmp_path / "run", MODELS["eve_tied"])
    export(directory, tmp_path / "out")
    experiment = load(directory.experiment_file)
    assert isinstance(experiment, VisionLanguageExperiment)
    kind = vision_language(experiment, directory)
    other = train_text(["one two one two three"] * 9, 270)
    with pytest.raises(ValueError, match="type: saved, from:"):
        replace(kind, encoder=replace(kind.encoder, text=other)).accept(tmp_path / "out")


def test_an_experiment_that_needs_more_than_an_export_holds_says_so(tmp_path: Path) -> None:
    directory, _ = run_of(tmp_path / "run", MODELS["eve_tied"])
    export(directory, tmp_path / "out")
    text = directory.experiment_file.read_text().replace("depth: 2", "depth: 3")
    stages = f"stages:\n  start: {{do: load, weights: {tmp_path / 'out'}}}\n"
    (tmp_path / "next.yaml").write_text(text.partition("stages:")[0] + stages)
    with pytest.raises(ValueError, match="leaves out what only training needs"):
        begun(tmp_path / "next.yaml", tmp_path / "next")


def test_what_is_no_export_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ValueError, match="lit-eve import --help"):
        read_exported(tmp_path)
    with pytest.raises(ValueError, match="does not overwrite"):
        import_exported(tmp_path, tmp_path)
