"""A small assistant with loud random weights, whose answers depend on all they are asked with."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from lit_eve.inference.assistant import Assistant
from lit_eve.models.encoder_free import EncoderFreeVLM
from lit_eve.models.language_model import LanguageModel
from lit_eve.models.patch_embedding import EvePatchEmbedding
from lit_eve_data.disk.records import StoredImage
from lit_eve_data.encoding.images import ImageCutter, Native
from lit_eve_data.encoding.vocabulary import bytes_text
from lit_eve_data.packing.lengths import SampleEncoder


def tiny_assistant(max_positions: int = 256) -> Assistant:
    torch.manual_seed(3)
    text = bytes_text()
    decoder = LanguageModel.llama(text.num_tokens, 16, 2, 2, max_positions=max_positions)
    for parameter in decoder.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    model = EncoderFreeVLM(decoder, EvePatchEmbedding(4, 2, 8, 16, heads=2)).eval()
    cutter = ImageCutter(model.layout, Native(), (0.5,) * 3, (0.5,) * 3)
    return Assistant(model, SampleEncoder(text, cutter), "learn", Path("model.safetensors"))


def picture(height: int, width: int, seed: int = 0) -> StoredImage:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return StoredImage.raw(pixels)


def write_picture(path: Path, height: int = 16, width: int = 24, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(height, width, seed).pixels()).save(path)
    return path


def png(height: int = 16, width: int = 24, seed: int = 0) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture(height, width, seed).pixels()).save(file, "PNG")
    return file.getvalue()
