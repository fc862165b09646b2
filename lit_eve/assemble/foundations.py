"""A decoder and a CLIP from the experiment file's words, and the folders they are left in."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import CLIPConfig, CLIPImageProcessor

from lit_eve.assemble.vision_encoders import NO_SHAPES
from lit_eve.assemble.vision_language import LANGUAGE_MODELS
from lit_eve.models.contrastive import ContrastiveModel
from lit_eve.models.text_model import TextModel
from lit_eve.schema import foundations
from lit_eve_data.encoding.text import ChatText


def text_model(options: foundations.TextModel, num_tokens: int, weights: bool = True) -> TextModel:
    """The language model of an experiment, alone.

    Args:
        options: its block in the file.
        num_tokens: size of the text tokenizer's vocabulary.
        weights: read a pretrained decoder's weights; without, only its shape.
    """
    decoder = options.language_model
    return TextModel(LANGUAGE_MODELS[decoder.type](decoder, num_tokens, weights, NO_SHAPES))


def contrastive(options: foundations.Contrastive, text: ChatText) -> ContrastiveModel:
    """The CLIP of an experiment."""
    picture, caption = options.picture, options.caption

    def half(block: foundations.Half) -> dict[str, int]:
        return {
            "hidden_size": block.width,
            "intermediate_size": 4 * block.width,
            "num_hidden_layers": block.depth,
            "num_attention_heads": block.heads,
        }

    config = CLIPConfig(
        vision_config={**half(picture), "image_size": picture.side, "patch_size": picture.patch},
        text_config={
            **half(caption),
            "vocab_size": text.num_tokens,
            "max_position_embeddings": caption.longest,
            "eos_token_id": text.end_id,
            "pad_token_id": text.pad_id,
            "bos_token_id": None,
        },
        projection_dim=options.width,
    )
    return ContrastiveModel(config)


def write_language_model(model: TextModel, text: ChatText, folder: Path) -> None:
    """Write a decoder and its tokenizer as Transformers reads them."""
    folder.mkdir(parents=True, exist_ok=True)
    model.language_model.model.save_pretrained(folder)
    text.save(folder)


def write_clip(
    model: ContrastiveModel, options: foundations.Contrastive, text: ChatText, folder: Path
) -> None:
    """Write a CLIP, its tokenizer and its way of seeing as Transformers reads them."""
    folder.mkdir(parents=True, exist_ok=True)
    model.clip.save_pretrained(folder)
    text.save(folder)
    side = options.picture.side
    CLIPImageProcessor(
        do_center_crop=False,
        size={"height": side, "width": side},
        image_mean=list(options.images.mean),
        image_std=list(options.images.std),
    ).save_pretrained(folder)


def on_meta_text(options: foundations.TextModel, num_tokens: int) -> TextModel:
    """Its shape without any memory."""
    with torch.device("meta"):
        return text_model(options, num_tokens, weights=False)


def on_meta_contrastive(options: foundations.Contrastive, text: ChatText) -> ContrastiveModel:
    """Its shape without any memory."""
    with torch.device("meta"):
        return contrastive(options, text)
