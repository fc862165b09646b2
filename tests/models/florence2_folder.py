"""A small Florence-2 on disk, as its authors' would lie there."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import (
    CLIPImageProcessor,
    Florence2Config,
    Florence2ForConditionalGeneration,
    PreTrainedTokenizerFast,
)

SIDE = 16
WORDS = ["<s>", "<pad>", "</s>", "<unk>", "What", "does", "the", "image", "describe", "?", "Hm"]
IMAGE = len(WORDS)
"""Stands for a feature of the picture."""
SHORT, LONG = "Hm", "What does the image describe?"


def write_florence2(folder: Path, longest: int = 20) -> Path:
    """Random weights, no dropout, two stages of the tower and two layers; gives the folder.

    Args:
        folder: to write.
        longest: slots of picture and prompt together.
    """
    torch.manual_seed(3)
    tower = {
        "depths": [1, 1],
        "patch_size": [7, 3],
        "patch_stride": [4, 2],
        "patch_padding": [3, 1],
        "patch_prenorm": [False, True],
        "embed_dim": [8, 12],
        "num_heads": [2, 2],
        "num_groups": [2, 2],
        "window_size": 2,
        "drop_path_rate": 0.0,
        "projection_dim": 16,
        "max_position_embeddings": 4,
    }
    reading = {
        "model_type": "bart",
        "vocab_size": len(WORDS) + 1,
        "d_model": 16,
        "encoder_layers": 2,
        "decoder_layers": 1,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 32,
        "decoder_ffn_dim": 32,
        "max_position_embeddings": longest,
        "dropout": 0.0,
        "scale_embedding": True,
    }
    config = Florence2Config(vision_config=tower, text_config=reading, image_token_id=IMAGE)
    model = Florence2ForConditionalGeneration(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    model.save_pretrained(folder)
    _write_processor(folder)
    return folder


def _write_processor(folder: Path) -> None:
    """Pictures as CLIP cuts them, and a word a token."""
    CLIPImageProcessor(size={"height": SIDE, "width": SIDE}).save_pretrained(folder)
    words = Tokenizer(WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=words, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    ).save_pretrained(folder)
