"""Tiny checkpoints of EVE, named as the authors' code names them, and what becomes of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config

from lit_eve.importing.eve import Version, convert, decoder_config, our_name
from lit_eve.importing.eve_run import import_eve
from lit_eve.models.patch_embedding import EvePatchEmbedding, EveV2PatchEmbedding
from lit_eve.schema import VisionLanguageExperiment, load
from lit_eve_data.disk.records import Turn
from lit_eve_data.encoding.text import ChatText
from lit_eve_data.encoding.vocabulary import bytes_text
from tests.models.eve_plain import eve_tokens
from tests.models.packed import pack_images

WIDTH, INNER, LAYERS = 16, 8, 4
SIZE: dict[str, Any] = {
    "vocab_size": bytes_text().num_tokens,
    "hidden_size": WIDTH,
    "intermediate_size": 24,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
}


def random(**shapes: tuple[int, ...]) -> dict[str, Tensor]:
    return {name.replace("__", "."): torch.randn(shape) for name, shape in shapes.items()}


def attention(place: str) -> dict[str, Tensor]:
    shapes = {"q.0": 1, "q.1": INNER, "kv.0": 1, "kv.1": 2 * INNER, "proj": INNER}
    made: dict[str, Tensor] = {}
    for part, rows in shapes.items():
        made[f"{place}.{part}.weight"] = torch.randn((rows, INNER) if rows > 1 else (INNER,))
        if rows == 1 or part == "proj":
            made[f"{place}.{part}.bias"] = torch.randn(INNER)
    return made


def v1() -> dict[str, Tensor]:
    torch.manual_seed(0)
    decoder = AutoModelForCausalLM.from_config(LlamaConfig(**SIZE))  # type: ignore[no-untyped-call]
    tower, compressor = "model.vision_tower", "model.vision_tower_compressor"
    made: dict[str, Tensor] = {
        **decoder.state_dict(),
        f"{tower}.patch_embedding.weight": torch.randn(INNER, 3, 14, 14),
        f"{tower}.class_embedding": torch.randn(INNER),
        f"{tower}.split_embedding": torch.randn(INNER),
        **attention(f"{tower}.local_attention"),
        **attention(f"{tower}.global_attention"),
        "model.mm_projector.0.weight": torch.randn(WIDTH, INNER),
        "model.mm_projector.0.bias": torch.randn(WIDTH),
        "model.mm_projector.2.weight": torch.randn(WIDTH, WIDTH),
        "model.mm_projector.2.bias": torch.randn(WIDTH),
        f"{compressor}.input_layer.weight": torch.randn(8, WIDTH),
        f"{compressor}.input_layer.bias": torch.randn(8),
        f"{compressor}.output_layer.weight": torch.randn(8, 8),
        f"{compressor}.output_layer.bias": torch.randn(8),
        "model.layers.0.self_attn.rotary_emb.inv_freq": torch.randn(4),
        "model.vision_clip.vision_tower.embeddings.weight": torch.randn(2),
    }
    for number in range(2):
        made[f"{compressor}.norm_layer.{number}.0.weight"] = torch.randn(WIDTH)
        made[f"{compressor}.norm_layer.{number}.0.bias"] = torch.randn(WIDTH)
        made[f"{compressor}.norm_layer.{number}.1.weight"] = torch.randn(8, WIDTH)
    return made


def v2(start: str = "class", end: str = "split") -> dict[str, Tensor]:
    torch.manual_seed(0)
    decoder = AutoModelForCausalLM.from_config(Qwen2Config(**SIZE))  # type: ignore[no-untyped-call]
    made: dict[str, Tensor] = dict(decoder.state_dict())
    for name in list(made):
        head, dot, rest = name.partition(".layers.")
        if dot:
            words = rest.split(".")
            words[2 if words[1] == "self_attn" else 1] = (
                f"moe_{words[2 if words[1] == 'self_attn' else 1]}"
            )
            made[f"{head}{dot}{'.'.join(words)}"] = torch.randn(made[name].shape)
    tower = "model.vision_tower"
    return made | {
        f"{tower}.patch_embedding.0.weight": torch.randn(INNER, 3, 16, 16),
        f"{tower}.patch_embedding.0.bias": torch.randn(INNER),
        f"{tower}.patch_embedding.2.weight": torch.randn(WIDTH, INNER, 2, 2),
        f"{tower}.patch_embedding.2.bias": torch.randn(WIDTH),
        f"{tower}.{start}_embedding": torch.randn(WIDTH),
        f"{tower}.{end}_embedding": torch.randn(WIDTH),
    }


def published(
    folder: Path, tensors: dict[str, Tensor], processor: str, torch_files: bool = False
) -> Path:
    """A checkpoint as it is downloaded, in two shards."""
    folder.mkdir()
    settings: dict[str, Any] = {**SIZE, "model_type": "eve", "mm_vision_tower": processor}
    (folder / "config.json").write_text(json.dumps(settings))
    bytes_text().save(folder)
    names = sorted(tensors)
    ending = "bin" if torch_files else "safetensors"
    places: dict[str, str] = {}
    for number in (1, 2):
        name = f"model-{number}.{ending}"
        part = {key: tensors[key] for key in names[number - 1 :: 2]}
        places |= dict.fromkeys(part, name)
        if torch_files:
            torch.save(part, folder / name)
        else:
            save_file(part, folder / name)
    index = {"weight_map": places}
    (folder / f"model.{ending}.index.json").write_text(json.dumps(index))
    return folder


def check_prompt(run: Path) -> None:
    """By hand from the authors' `conv_vicuna_v1` and `conv_qwen_v2`.

    In both the space after `ASSISTANT:` is one token with the answer's first word.
    """
    text = ChatText.load(run / "text")
    asked: list[Turn] = [{"role": "user", "content": "<image>\nWhy?"}]
    words = text.tokenizer.decode(text.prompt(asked, [0]).ids, skip_special_tokens=False)
    assert words == (
        "A chat between a curious user and an artificial intelligence assistant. The assistant "
        "gives helpful, detailed, and polite answers to the user's questions. USER: \nWhy? "
        "ASSISTANT:"
    )
    answered = text.encode([*asked, {"role": "assistant", "content": "So."}], [0])
    ((start, stop),) = answered.answers
    assert text.tokenizer.decode(answered.ids[start:stop], skip_special_tokens=False) == " So.<end>"


@pytest.mark.parametrize("torch_files", [False, True])
def test_v1_becomes_a_run_that_sees_what_the_published_layers_see(
    tmp_path: Path, torch_files: bool
) -> None:
    tensors = v1()
    source = published(tmp_path / "eve", tensors, "openai/eve-patch14-anypixel-1344", torch_files)
    report = import_eve(source, tmp_path / "run", "eve-v1")
    assert set(report.used) | set(report.unused) == set(tensors)
    assert len(report.unused) == 12
    experiment = load(tmp_path / "run" / "experiment.yaml")
    assert isinstance(experiment, VisionLanguageExperiment)
    # Worked by hand: 336 / 14 cells of the teacher, four times as large.
    size = {"type": "longest_edge", "edge": 1344, "rounding": "up", "multiple": 56}
    assert experiment.model.images.size.model_dump() == size
    state = load_file(tmp_path / "run" / "imported" / "model.safetensors")
    layer = EvePatchEmbedding(14, 2, INNER, WIDTH, heads=8)
    start = "patch_embedding."
    layer.load_state_dict({k[len(start) :]: t for k, t in state.items() if k.startswith(start)})
    local = tensors["model.vision_tower.local_attention.kv.1.weight"]
    assert torch.equal(layer.window_attention.key_value.weight, local)
    image = torch.randn(3, 28, 56)
    torch.testing.assert_close(
        layer(pack_images([image], layer.layout)), eve_tokens(layer, image), atol=1e-4, rtol=1e-4
    )
    name = "model.layers.3.mlp.up_proj.weight"
    assert torch.equal(state[f"language_model.model.{name}"], tensors[name])
    check_prompt(tmp_path / "run")


def test_v1_takes_its_patch_alignment_along_if_asked(tmp_path: Path) -> None:
    source = published(tmp_path / "eve", v1(), "openai/eve-patch14-anypixel-672")
    import_eve(source, tmp_path / "run", "eve-v1", alignment=True)
    experiment = load(tmp_path / "run" / "experiment.yaml")
    assert isinstance(experiment, VisionLanguageExperiment)
    assert experiment.model.type == "encoder_free"
    aligned = experiment.model.patch_alignment
    assert aligned is not None
    assert (aligned.width, aligned.every) == (8, 4)


@pytest.mark.parametrize("names", [("class", "split"), ("start", "end")], ids="-".join)
def test_v2_brings_both_sets_of_weights(tmp_path: Path, names: tuple[str, str]) -> None:
    tensors = v2(*names)
    source = published(tmp_path / "eve", tensors, "openai/eve-anyratio-res800-patch16")
    imported = convert(source, "eve-v2")
    assert not imported.report.unused
    layer = "language_model.model.model.layers.1."
    mine, theirs = imported.state, "model.layers.1."
    for there, here in (
        ("self_attn.q_proj.bias", "self_attn.q_proj.text.bias"),
        ("self_attn.moe_q_proj.bias", "self_attn.q_proj.vision.bias"),
        ("moe_mlp.up_proj.weight", "mlp.vision.up_proj.weight"),
        ("input_layernorm.weight", "input_layernorm.text.weight"),
        ("moe_post_attention_layernorm.weight", "post_attention_layernorm.vision.weight"),
    ):
        assert torch.equal(mine[layer + here], tensors[theirs + there])
    embedding = EveV2PatchEmbedding(16, 2, INNER, WIDTH)
    start = "patch_embedding."
    embedding.load_state_dict({k[len(start) :]: t for k, t in mine.items() if k.startswith(start)})
    end = tensors[f"model.vision_tower.{names[1]}_embedding"]
    assert torch.equal(embedding.row_end_embedding, end)


def test_v2_is_asked_as_it_was_instructed(tmp_path: Path) -> None:
    # Its own chat template is that of an untouched Qwen.
    import_eve(published(tmp_path / "eve", v2(), "res800-patch16"), tmp_path / "run", "eve-v2")
    check_prompt(tmp_path / "run")


@pytest.mark.parametrize("version", ["eve-v1", "eve-v2"])
@pytest.mark.parametrize(
    "written", [{"rope_theta": 5e5}, {"rope_parameters": {"rope_theta": 5e5}}], ids="-".join
)
def test_positions_turn_as_the_checkpoint_says(version: Version, written: dict[str, Any]) -> None:
    # Transformers 5 writes a table of its own, where 4 wrote a number.
    assert decoder_config(SIZE | written, version).rope_parameters["rope_theta"] == 5e5


def test_a_name_of_one_version_means_nothing_in_the_other() -> None:
    name = "model.layers.0.self_attn.moe_q_proj.weight"
    assert our_name(name, "eve-v2").endswith("self_attn.q_proj.vision.weight")
    assert our_name(name, "eve-v1").endswith("self_attn.moe_q_proj.weight")


@pytest.mark.parametrize(
    ("change", "advice"),
    [
        ("missing", r"1 tensors are missing \['language_model.model.model.norm.weight'\]"),
        ("unknown", r"1 have no place \['model.something.weight'\]"),
        ("shape", r"another shape \['model.norm.weight is \(3,\), not \(16,\)'\]"),
        ("two", r"are both patch_embedding.class_embedding"),
        ("shard", r"names 2 files, and \['model-2.safetensors'\] are not there"),
        ("other", "holds no patch embedding of eve-v1"),
    ],
)
def test_what_does_not_fill_the_model_is_refused(tmp_path: Path, change: str, advice: str) -> None:
    tensors = v2() if change in ("two", "other") else v1()
    if change == "missing":
        del tensors["model.norm.weight"]
    elif change == "unknown":
        tensors["model.something.weight"] = torch.zeros(1)
    elif change == "shape":
        tensors["model.norm.weight"] = torch.zeros(3)
    elif change == "two":
        tensors["model.vision_tower.start_embedding"] = torch.zeros(WIDTH)
    source = published(tmp_path / "eve", tensors, "anypixel-672")
    if change == "shard":
        (source / "model-2.safetensors").unlink()
    with pytest.raises(ValueError, match=advice):
        convert(source, "eve-v2" if change == "two" else "eve-v1")


def test_an_import_writes_nothing_where_something_is_or_the_size_is_not_known(
    tmp_path: Path,
) -> None:
    source = published(tmp_path / "eve", v1(), "somewhere")
    with pytest.raises(ValueError, match="exists: an import does not overwrite"):
        import_eve(source, tmp_path, "eve-v1")
    with pytest.raises(ValueError, match="Give it in pixels: --side 672 or 1344"):
        import_eve(source, tmp_path / "run", "eve-v1")
    import_eve(source, tmp_path / "run", "eve-v1", side=672)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["eve", "run"]


def test_a_torch_file_that_would_run_code_is_not_read(tmp_path: Path) -> None:
    source = published(tmp_path / "eve", v1(), "anypixel-672", torch_files=True)
    torch.save({"weight": Path("x")}, source / "model-1.bin")
    with pytest.raises(ValueError, match=r"asks for pathlib\S+, which weights do not need"):
        convert(source, "eve-v1")


def test_a_folder_without_settings_or_weights_says_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Download the whole folder"):
        convert(tmp_path, "eve-v1")
    (tmp_path / "config.json").write_text(json.dumps({"hidden_size": 4}))
    with pytest.raises(ValueError, match="does not say vocab_size, intermediate_size"):
        convert(tmp_path, "eve-v1")
    (tmp_path / "config.json").write_text(json.dumps(SIZE))
    with pytest.raises(ValueError, match="holds no weights"):
        convert(tmp_path, "eve-v1")
