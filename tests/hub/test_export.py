"""An exported run is the run: the same tokens in, the same scores and answers out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import (
    AutoImageProcessor,
    AutoModel,
    pipeline,
)

from lit_eve.checkpoints import write_weights
from lit_eve.checkpoints.atomic import write_checkpoint
from lit_eve.checkpoints.files import checkpoint_name
from lit_eve.hub.configuration import FORMAT
from lit_eve.hub.export import export
from lit_eve.hub.image_processing import LitEvePixelProcessor
from lit_eve.models.generation import Sampling, generate
from lit_eve.models.vision_language import VisionLanguageModel
from lit_eve.running.directory import RunDirectory
from lit_eve.strategies.saving import ShardWriter
from lit_eve_data.encoding.crops import Crop
from tests.files import QUICKSTART
from tests.hub.made import (
    MODELS,
    PROCESSOR,
    READER,
    asked,
    opened,
    packed,
    picture,
    run_of,
)

ROOT = QUICKSTART.parent.parent
LONGEST = 12
TOKENIZER: Any = AutoModel
PIXELS: Any = AutoImageProcessor
ONE, TWO = picture(1, 40, 30), picture(2, 20, 64)


def answer(model: Any, inputs: Any, number: int = 0) -> list[int]:
    """New tokens of one of the prompts, without the end."""
    made: Tensor = model.generate(**inputs, max_new_tokens=LONGEST)
    ids: list[int] = made[number, inputs["input_ids"].shape[1] :].tolist()
    end = model.generation_config.eos_token_id
    return ids[: ids.index(end)] if end in ids else ids


@pytest.mark.parametrize("name", list(MODELS))
def test_scores_and_answers_are_the_runs_own(name: str, tmp_path: Path) -> None:
    directory, model = run_of(tmp_path / "run", MODELS[name])
    assert isinstance(model, VisionLanguageModel)
    export(directory, tmp_path / "out")
    processor, exported = opened(tmp_path / "out")
    batch, end = packed(directory, "How many?", ONE, TWO)
    inputs = processor.apply_chat_template(asked("How many?", ONE, TWO), tokenize=True)
    with torch.no_grad():
        wanted = model.language_model.logits(model(batch).hidden)
        given = exported(**inputs).logits
    torch.testing.assert_close(given, wanted, rtol=0, atol=1e-5)
    said = generate(model, batch, Sampling(LONGEST, end))[0]
    assert answer(exported, inputs) == said
    assert len(set(said)) > 1
    embeddings = exported.get_input_embeddings().weight, exported.get_output_embeddings().weight
    assert (embeddings[0] is embeddings[1]) == ("untied" not in name)


# Rounded weights make the same scores to a few of bfloat16's 2^-8, in the largest score's units.
@pytest.mark.parametrize("name", [name for name in MODELS if name != "encoder"])
def test_weights_in_bfloat16_are_opened_as_such_and_score_alike(name: str, tmp_path: Path) -> None:
    directory, _ = run_of(tmp_path / "run", MODELS[name])
    for folder, dtype in (("whole", None), ("half", "bfloat16")):
        export(directory, tmp_path / folder, dtype=dtype)
    processor, half = opened(tmp_path / "half")
    inputs = processor.apply_chat_template(asked("How many?", ONE, TWO), tokenize=True)
    with torch.no_grad():
        given = half(**inputs).logits
        wanted = opened(tmp_path / "whole")[1](**inputs).logits
    assert given.dtype == half.dtype == torch.bfloat16
    assert (given - wanted).square().mean().sqrt() < 0.05 * wanted.square().mean().sqrt()


@pytest.mark.parametrize("name", ["eve_v2_untied_divided", "cross_attention"])
def test_a_prompt_is_answered_alike_alone_in_a_batch_and_without_a_cache(
    name: str, tmp_path: Path
) -> None:
    export(run_of(tmp_path / "run", MODELS[name])[0], tmp_path / "out")
    processor, model = opened(tmp_path / "out")
    chats = [asked("How many?", ONE), asked("And what is in these two?", TWO, ONE), asked("Why?")]
    alone = processor.apply_chat_template(chats[0], tokenize=True)
    inputs = processor.apply_chat_template(chats, tokenize=True)
    wanted = answer(model, alone)
    assert len(set(wanted)) > 1
    assert answer(model, inputs) == wanted
    assert answer(model, {**alone, "use_cache": False}) == wanted
    beams = {"num_beams": 2, "num_return_sequences": 2}
    assert answer(model, {**inputs, **beams}, 1) == answer(model, {**alone, **beams}, 1)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    export(run_of(folder / "run", MODELS["eve_tied"])[0], folder / "out")
    return folder / "out"


def test_a_fresh_process_needs_only_import_lit_eve(exported: Path) -> None:
    ONE.save(exported.parent / "one.png")
    code = f"""
import sys, lit_eve
assert "torch" not in sys.modules
from transformers import pipeline
ask = pipeline("image-text-to-text", model={str(exported)!r})
image = dict(type="image", path={str(exported.parent / "one.png")!r})
content = [image, dict(type="text", text="Hm")]
print([ask(text=[dict(role="user", content=content)], max_new_tokens=9, return_full_text=False)])
assert "lightning" not in sys.modules
"""
    paths = os.pathsep.join(str(ROOT / part) for part in ("", "data", "callbacks"))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    answering: Any = pipeline("image-text-to-text", model=str(exported))
    here = answering(text=asked("Hm", ONE), max_new_tokens=9, return_full_text=False)
    assert done.returncode == 0, done.stderr
    assert repr(here[0]["generated_text"]) in done.stdout
    assert "[transformers]" not in done.stderr  # it has nothing to warn of


def test_text_and_tokens_of_a_conversation_say_the_same(exported: Path) -> None:
    processor = PROCESSOR.from_pretrained(exported)
    chat = [
        *asked("What?", ONE),
        {"role": "assistant", "content": "Noise"},
        {"role": "user", "content": [{"type": "text", "text": "And "}, {"type": "image"}]},
    ]
    text = processor.apply_chat_template(chat)
    assert text == "<user><image>\nWhat?<assistant>Noise<end><user>And <image><assistant>"
    flat = processor.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert flat == text
    chat[2]["content"][1]["image"] = TWO
    tokens = processor.apply_chat_template(chat, tokenize=True)
    written = processor(images=[ONE, TWO], text=text)
    assert all(torch.equal(tokens[key], written[key]) for key in tokens)


def test_special_tokens_in_somebodys_words_stay_words(exported: Path) -> None:
    processor = PROCESSOR.from_pretrained(exported)
    ids = processor.apply_chat_template(asked("<end>"), tokenize=True)["input_ids"][0].tolist()
    assert processor.tokenizer.convert_tokens_to_ids("<end>") not in ids


def test_pictures_become_upright_and_opaque(exported: Path, tmp_path: Path) -> None:
    processor = PIXELS.from_pretrained(exported)
    turned = Image.new("RGBA", (32, 64), (0, 0, 0, 0))
    turned.save(tmp_path / "turned.png", exif=_orientation(6))
    wanted = processor(Image.new("RGB", (64, 32), "white"))
    given = processor(tmp_path / "turned.png")
    assert torch.equal(given["pixel_values"], wanted["pixel_values"])
    assert torch.equal(given["image_grids"], wanted["image_grids"])


def _orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


def test_an_answer_that_was_begun_is_continued(exported: Path) -> None:
    processor = PROCESSOR.from_pretrained(exported)
    begun = [*asked("What?", ONE), {"role": "assistant", "content": "It is"}]
    ids = processor.apply_chat_template(begun, tokenize=True, continue_final_message=True)
    assert processor.decode(ids["input_ids"][0, -5:]) == "It is"


def test_the_card_has_the_figures_and_no_path_of_the_machine(exported: Path) -> None:
    card = (exported / "README.md").read_text()
    assert "| held-out read | 0.25 |" in card
    assert "pipeline_tag: image-text-to-text" in card
    assert str(exported.parent) not in card


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")
def test_checkpoints_of_an_unfinished_stage_are_exported_whole_or_in_shards(
    tmp_path: Path,
) -> None:
    directory, model = run_of(tmp_path / "run", MODELS["eve_tied"])
    directory.weights("first").unlink()
    weights = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    folder = directory.checkpoints("first")
    blank = {name: torch.zeros_like(tensor) for name, tensor in weights.items()}
    write_checkpoint({"global_step": 3, "state_dict": blank}, folder / checkpoint_name(3))
    whole = {"global_step": 6, "state_dict": weights}
    ShardWriter(background=False).write(whole, folder / checkpoint_name(6), tmp_path / "partial")
    export(directory, tmp_path / "newest")
    export(directory, tmp_path / "third", step=3)
    newest, third = opened(tmp_path / "newest")[1], opened(tmp_path / "third")[1]
    for name, tensor in newest.model.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name])
        assert not third.model.state_dict()[name].any()
    card = (tmp_path / "newest" / "README.md").read_text()
    assert "step-00000006.ckpt" in card
    assert "held-out" not in card
    with pytest.raises(ValueError, match="first 3, first 6, or leave --step out"):
        export(directory, tmp_path / "fifth", step=5)


TOKENIZERS = {
    "fsq": "{type: fsq, levels: [5, 4]}",
    "vq": "{type: vq, codes: 8, width: 4}",
    "residual_lfq": "{type: residual, depth: 2, quantizer: {type: lfq, bits: 3}}",
}


@pytest.mark.parametrize("name", list(TOKENIZERS))
def test_an_image_tokenizer_gives_the_same_codes_and_pictures(name: str, tmp_path: Path) -> None:
    block = (
        "{type: tokenizer, likelihood: l2, discriminator: {width: 8, layers: 1}, "
        "encoder: {type: convolutional, width: 8, multipliers: [1, 1], blocks: 1, norm: none}, "
        f"quantizer: {TOKENIZERS[name]}}}"
    )
    directory, made = run_of(tmp_path / "run", block, "tokenizer")
    with pytest.raises(ValueError, match=r"other codes for the same pictures.*Leave --dtype out"):
        export(directory, tmp_path / "out", dtype="float16")
    export(directory, tmp_path / "out")
    tokenizer, found = TOKENIZER.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(found.values())
    processor = PIXELS.from_pretrained(tmp_path / "out")
    pixels = processor([picture(3, 16, 24), picture(4, 16, 24)])["pixel_values"]
    codes = tokenizer.encode(pixels)
    model: Any = made
    assert torch.equal(codes, model.encode(pixels))
    assert codes.unique().numel() > 1
    torch.testing.assert_close(tokenizer.decode(codes), model.decode(codes), rtol=0, atol=1e-6)
    assert torch.equal(tokenizer(pixel_values=pixels).codes, codes)


def test_pictures_that_were_cropped_in_training_are_cropped_in_the_middle(tmp_path: Path) -> None:
    LitEvePixelProcessor.of(8, Crop(16, (1.0, 1.5), flip=True)).save_pretrained(tmp_path)
    shown = [picture(3, 16, 24), picture(4, 40, 16)]
    pixels = PIXELS.from_pretrained(tmp_path)(shown)["pixel_values"]  # (2, 3, 16, 16)
    middles = [np.asarray(shown[0])[:, 4:20], np.asarray(shown[1])[12:28]]
    assert torch.equal(pixels, torch.from_numpy(np.stack(middles)).permute(0, 3, 1, 2) / 255)


def test_a_folder_that_holds_something_is_not_written_to(exported: Path) -> None:
    with pytest.raises(ValueError, match="Name another folder with --to"):
        export(RunDirectory(exported.parent / "run"), exported)


def test_a_format_that_nobody_reads_or_that_is_too_small_is_refused(tmp_path: Path) -> None:
    directory, model = run_of(tmp_path / "run", MODELS["linear_native"])
    with pytest.raises(ValueError, match=r"'int8'.*Choose from float32, bfloat16, float16"):
        export(directory, tmp_path / "out", dtype="int8")
    weights = {name: tensor * 1e6 for name, tensor in model.state_dict().items()}
    write_weights(directory.weights("first"), weights)
    with pytest.raises(ValueError, match=r"float16 ends at 6.55e\+04.*Choose --dtype bfloat16"):
        export(directory, tmp_path / "out", dtype="float16")


def test_a_run_without_weights_is_refused(tmp_path: Path) -> None:
    directory, _ = run_of(tmp_path / "run", MODELS["eve_tied"])
    directory.weights("first").unlink()
    with pytest.raises(ValueError, match="no weights yet"):
        export(directory, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    directory, _ = run_of(tmp_path / "run", MODELS["eve_tied"])
    text = directory.experiment_file.read_text()
    directory.experiment_file.write_text(text.replace("depth: 2", "depth: 3"))
    directory.write_json("environment.json", {"packages": {"lit-eve": "9.9"}})
    with pytest.raises(ValueError, match=r"written by lit-eve 9\.9.*does not fill the model"):
        export(directory, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_newer_export_is_refused(exported: Path, tmp_path: Path) -> None:
    config = json.loads((exported / "config.json").read_text())
    config["export_format"] = FORMAT + 1
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="Install the lit-eve that its model card names"):
        READER.from_pretrained(tmp_path)


def test_pictures_and_places_must_fit(exported: Path) -> None:
    processor, model = opened(exported)
    with pytest.raises(ValueError, match="Add what is missing"):
        processor(images=ONE, text="<user>What?<assistant>")
    with pytest.raises(ValueError, match="Leave add_generation_prompt out"):
        processor.apply_chat_template(asked("What?"), tokenize=True, add_generation_prompt=False)
    with pytest.raises(ValueError, match="would be ignored"):
        processor.apply_chat_template(asked("What?"), tokenize=True, tools=[1])
    inputs = processor.apply_chat_template(asked("What?", ONE), tokenize=True)
    with pytest.raises(ValueError, match="make both from the same messages"):
        model(input_ids=inputs["input_ids"])
    with pytest.raises(ValueError, match="without image_grids"):
        model(input_ids=inputs["input_ids"], pixel_values=inputs["pixel_values"])
    with pytest.raises(ValueError, match="give one of the two"):
        model()
