"""Answers to prompts with images, many at once.

Shapes: N samples of the batch, R rows, T slots a row, L the longest prompt, E width.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedModel

from lit_eve.models.splice import splice
from lit_eve.models.vision_language import VisionLanguageModel
from lit_eve_data.batches import PackedBatch


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen and when to stop.

    Raises:
        ValueError: if a number is out of range, or `top_p` would be ignored.
    """

    max_new_tokens: int
    end_token: int
    """Id that ends an answer; it is not part of it."""
    temperature: float = 0.0
    """0 takes the likeliest token; else scores are divided by it and a token is drawn."""
    top_p: float = 1.0
    """Draw among the likeliest tokens that together have this probability."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ValueError(
                f"max_new_tokens is {self.max_new_tokens}: an answer has at least one token."
            )
        if self.temperature < 0:
            raise ValueError(
                f"temperature is {self.temperature}: give 0 for the likeliest token, "
                "or a positive number to draw."
            )
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}: it is a share, above 0 and at most 1.")
        if self.top_p < 1 and self.temperature == 0:
            raise ValueError(
                f"top_p {self.top_p} would be ignored: at temperature 0 nothing is drawn. "
                "Give a positive temperature, or leave top_p out."
            )


@torch.no_grad()
def generate(
    model: VisionLanguageModel, prompts: PackedBatch, sampling: Sampling
) -> list[list[int]]:
    """Continue every sample of a packed batch.

    Args:
        model: as trained; left in the mode it was in.
        prompts: samples without their answers, packed like any batch: images of any size and
            number, or none.
        sampling: how to choose and when to stop.

    Returns:
        New token ids of every sample, in the order of `prompts.kinds`, without the end token.

    Raises:
        ValueError: if the longest prompt and its answer have no room in the decoder's positions.
    """
    if prompts.num_samples == 0:
        return []
    with _evaluating(model), _plain_generation_config(model.language_model.model):
        index, mask = _left_padded(prompts)
        _check_room(index.shape[1], sampling, model.language_model.max_positions)
        sight = model.look(prompts.images)
        words = model.language_model.embed(prompts.token_ids)  # (R, T, E)
        rows = splice(words, sight.tokens, prompts.image_slots).flatten(0, 1)  # (R*T, E)
        embeddings = rows[index] * mask[:, :, None]  # (N, L, E)
        shown = torch.zeros_like(rows[:, 0], dtype=torch.bool).index_fill(0, prompts.image_slots, 1)
        visual = (shown[index] & mask).flatten().nonzero().squeeze(1)  # (V,)
        devices = [rows.device] if rows.device.type == "cuda" else []
        decoder = model.language_model
        positions = torch.arange(index.shape[1], device=index.device).expand_as(index)  # (N, L)
        with (
            torch.random.fork_rng(devices),
            decoder.prompted(index.shape, visual),
            model.attending(sight, visual, positions),
        ):
            torch.manual_seed(sampling.seed)
            ids: Tensor = decoder.model.generate(  # type: ignore[operator]
                inputs_embeds=embeddings,
                attention_mask=mask,
                generation_config=_generation_config(sampling),
            )
    return [_until(sampling.end_token, answer) for answer in ids.tolist()]


def _left_padded(prompts: PackedBatch) -> tuple[Tensor, Tensor]:
    """Where each sample's tokens stand in the rows, (N, L) int64, and which are real, (N, L)."""
    segments = prompts.segment_ids.cpu()  # (R, T)
    slots = torch.arange(segments.numel()).view_as(segments)  # (R, T)
    samples = [
        slots[row][segments[row] == segment] for row, segment in prompts.sample_segments.tolist()
    ]
    index = nn.utils.rnn.pad_sequence(
        samples, batch_first=True, padding_value=-1, padding_side="left"
    )  # (N, L)
    index = index.to(prompts.segment_ids.device)
    return index.clamp(min=0), index >= 0


def _check_room(longest: int, sampling: Sampling, positions: int) -> None:
    if longest + sampling.max_new_tokens > positions:
        raise ValueError(
            f"a prompt of {longest} tokens and {sampling.max_new_tokens} new ones need more than "
            f"the decoder's {positions} positions. Use a smaller image, a shorter text or fewer "
            "new tokens."
        )


def _generation_config(sampling: Sampling) -> GenerationConfig:
    drawing = {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
    return GenerationConfig(  # type: ignore[no-untyped-call]
        max_new_tokens=sampling.max_new_tokens,
        eos_token_id=sampling.end_token,
        pad_token_id=sampling.end_token,
        do_sample=sampling.temperature > 0,
        **(drawing if sampling.temperature > 0 else {}),
    )


def _until(end: int, ids: list[int]) -> list[int]:
    return ids[: ids.index(end)] if end in ids else ids


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Every module in evaluation mode, then each back in its own."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def _plain_generation_config(model: PreTrainedModel) -> Iterator[None]:
    """Without the sampling settings published with a model, which would fill in for ours."""
    published = model.generation_config
    model.generation_config = GenerationConfig()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        model.generation_config = published
