"""Folders that look like a finished run's, made without any training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    LlamaConfig,
    LlamaForCausalLM,
)

from lit_eve import assemble
from lit_eve.assemble.tokenizers import build_tokenizer
from lit_eve.checkpoints import write_weights
from lit_eve.inference.assistant import ask
from lit_eve.inference.opening import vision_language
from lit_eve.running.directory import RunDirectory
from lit_eve.schema import Experiment, VisionLanguageExperiment, load
from lit_eve_data.batches import PackedBatch
from lit_eve_data.disk.records import StoredImage
from lit_eve_data.encoding.text import ChatText
from lit_eve_data.encoding.vocabulary import bytes_text, pretrained_text
from lit_eve_data.packing.rows import Item, collate

READER: Any = AutoModelForImageTextToText
PROCESSOR: Any = AutoProcessor
FREE = "type: encoder_free, images: {size: {type: square, edge: 32}}"
BYTES = "text: {type: bytes}"
LLAMA = "type: llama, width: 32, depth: 2, heads: 2, max_positions: 256"
VIT = "type: vit, width: 16, depth: 2, heads: 2, patch: 8, image: 16"
MODELS = {
    "eve_tied": f"{{{FREE}, {BYTES}, language_model: {{{LLAMA}}}, "
    "patch_embedding: {type: eve, patch: 8, pool: 2, width: 16, heads: 2}}",
    "eve_v2_untied_divided": f"{{{FREE}, {BYTES}, "
    f"language_model: {{{LLAMA}, tie_embeddings: false, divide: full}}, "
    "patch_embedding: {type: eve_v2, patch: 8, pool: 2, width: 16}}",
    "linear_native": f"{{type: encoder_free, {BYTES}, language_model: {{{LLAMA}, kv_heads: 1}}, "
    "patch_embedding: {type: linear, patch: 16}}",
    "encoder": f"{{type: encoder, {BYTES}, language_model: {{{LLAMA}}}, "
    f"vision_encoder: {{{VIT}}}, connector: {{type: mlp}}}}",
    "florence2": f"{{type: encoder, {BYTES}, language_model: {{{LLAMA}}}, vision_encoder: "
    "{type: florence2, width: 16, depth: 1, heads: 2, patch: 8, image: 16, prompts: [Hm, Why so]}, "
    "connector: {type: depth_breadth}}",
    "cross_attention": f"{{type: encoder, {BYTES}, language_model: {{{LLAMA}}}, "
    f"vision_encoder: {{{VIT}}}, connector: {{type: perceiver, queries: 3, depth: 1, heads: 2}}, "
    "fusion: {type: cross_attention, heads: 2, every: 1}}",
}
_FILE = """\
name: made
question: Does it come through?
model: {model}
datasets: {{scenes: {{type: scenes}}}}
stages:
  first: {{task: {task}, batch: 8, data: {{scenes: 1}}, for: 9 steps, train: {{{parts}}}}}
"""


def decoder_folder(folder: Path, text: ChatText) -> Path:
    """A small Llama with random weights and a tokenizer, as Transformers saves them."""
    config = LlamaConfig(
        vocab_size=300,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    text.save(folder)
    return folder


def run_of(folder: Path, model: str, task: str = "language") -> tuple[RunDirectory, nn.Module]:
    """A run with random final weights of its one stage, and the model that has them.

    Args:
        folder: of the run.
        model: its block in the file.
        task: of the stage.
    """
    folder.mkdir(parents=True)
    directory = RunDirectory(folder)
    parts = "encoder: 1, discriminator: 1" if task == "tokenizer" else "language_model: 1"
    directory.experiment_file.write_text(_FILE.format(model=model, task=task, parts=parts))
    experiment = load(directory.experiment_file)
    made = random_model(experiment)
    if isinstance(experiment, VisionLanguageExperiment):
        own = experiment.model.text is None and experiment.model.language_model
        text = pretrained_text(own.source) if own else bytes_text()  # type: ignore[union-attr]
        text.save(directory.text)
    write_weights(directory.weights("first"), made.state_dict())
    directory.write_json("first/summary.json", {"state": "finished", "scores": {"read": 0.25}})
    return directory, made


def random_model(experiment: Experiment) -> Any:
    """A model whose answers are not all the same."""
    torch.manual_seed(0)
    if isinstance(experiment, VisionLanguageExperiment):
        made: nn.Module = assemble.vision_language(experiment.model, bytes_text().num_tokens)
    else:
        made = build_tokenizer(experiment.model)  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(std=0.5)
    return made.eval()


def picture(seed: int, height: int, width: int) -> Image.Image:
    """Noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def asked(words: str, *images: Image.Image) -> list[dict[str, Any]]:
    """A conversation of one question, as Transformers writes it."""
    pieces: list[dict[str, Any]] = [{"type": "image", "image": image} for image in images]
    return [{"role": "user", "content": [*pieces, {"type": "text", "text": words}]}]


def packed(directory: RunDirectory, words: str, *images: Any) -> tuple[PackedBatch, int]:
    """A question as the platform reads it, and what ends an answer."""
    experiment = load(directory.experiment_file)
    assert isinstance(experiment, VisionLanguageExperiment)
    encoder = vision_language(experiment, directory).encoder_of("first")
    asks = ask(words, [StoredImage.raw(np.asarray(image)) for image in images])
    visual = [encoder.cutter.num_tokens(i.height, i.width) for i in asks.images]
    encoded = encoder.text.prompt(asks.turns, visual)
    item = Item(encoded, [image.pixels() for image in asks.images], "asked")
    batch = collate([[item]], len(encoded), encoder.text.pad_id, encoder.cutter)
    return batch, encoder.text.end_id


def opened(folder: Path) -> tuple[Any, Any]:
    """Processor and model, by Transformers' own doors."""
    model, found = READER.from_pretrained(folder, output_loading_info=True)
    assert not any(found.values())
    return PROCESSOR.from_pretrained(folder), model
