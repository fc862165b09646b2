"""An exported run of pretrained parts is whole without the folders they came from."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
)

from lit_eve.hub.export import export
from lit_eve.importing.exported import import_exported
from lit_eve.inference.opening import open_assistant
from lit_eve.models.vision_language import VisionLanguageModel
from lit_eve.running.directory import RunDirectory
from lit_eve_data.encoding.vocabulary import bytes_text
from tests.hub.made import BYTES, LLAMA, asked, decoder_folder, opened, packed, picture, run_of
from tests.models.florence2_folder import LONG, SHORT, write_florence2

ONE = picture(1, 40, 30)


def test_pretrained_parts_are_whole_without_the_folder_they_came_from(tmp_path: Path) -> None:
    decoder = decoder_folder(tmp_path / "decoder", bytes_text())
    block = (
        f"{{type: encoder_free, language_model: {{type: pretrained, from: {decoder}}},"
        " patch_embedding: {type: linear, patch: 16}}"
    )
    directory, model = run_of(tmp_path / "run", block)
    assert isinstance(model, VisionLanguageModel)
    batch, _ = packed(directory, "How many?", ONE)
    export(directory, tmp_path / "out")
    shutil.rmtree(decoder)
    assert str(tmp_path) not in (tmp_path / "out" / "config.json").read_text()
    processor, exported = opened(tmp_path / "out")
    with torch.no_grad():
        wanted = model.language_model.logits(model(batch).hidden)
        inputs = processor.apply_chat_template(asked("How many?", ONE), tokenize=True)
        torch.testing.assert_close(exported(**inputs).logits, wanted, rtol=0, atol=1e-5)


def _clip(folder: Path) -> str:
    half = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}
    seeing = {**half, "num_hidden_layers": 2, "image_size": 16, "patch_size": 8}
    config = CLIPConfig(
        vision_config=seeing, text_config={**half, "num_hidden_layers": 1}, projection_dim=8
    )
    CLIPModel(config).save_pretrained(folder)
    CLIPImageProcessor().save_pretrained(folder)
    return f"connector: {{type: linear}}, vision_encoder: {{type: pretrained, from: {folder}}}"


def _florence2(folder: Path) -> str:
    write_florence2(folder)
    seen = f"type: pretrained, from: {folder}, layers: [0, -1], prompts: ['{LONG}', {SHORT}]"
    return f"connector: {{type: depth_breadth}}, vision_encoder: {{{seen}}}"


@pytest.mark.parametrize("seeing", [_clip, _florence2])
def test_a_pretrained_encoder_keeps_its_own_way_of_seeing(
    seeing: Callable[[Path], str], tmp_path: Path
) -> None:
    parts = seeing(tmp_path / "encoder")
    block = f"{{type: encoder, {BYTES}, language_model: {{{LLAMA}}}, {parts}}}"
    directory, model = run_of(tmp_path / "run", block)
    assert isinstance(model, VisionLanguageModel)
    batch, _ = packed(directory, "How many?", ONE)
    export(directory, tmp_path / "out")
    shutil.rmtree(tmp_path / "encoder")
    processor, exported = opened(tmp_path / "out")
    with torch.no_grad():
        wanted = model.language_model.logits(model(batch).hidden)
        inputs = processor.apply_chat_template(asked("How many?", ONE), tokenize=True)
        torch.testing.assert_close(exported(**inputs).logits, wanted, rtol=0, atol=1e-5)
    import_exported(tmp_path / "out", tmp_path / "back")
    back = open_assistant(RunDirectory(tmp_path / "back")).model
    with torch.no_grad():
        again = back.language_model.logits(back(batch).hidden)
    torch.testing.assert_close(again, wanted, rtol=0, atol=1e-5)
