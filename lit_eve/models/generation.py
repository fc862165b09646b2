"""Answers to prompts with images, many at once.

Shapes: N samples of the batch, R rows, T slots a row, L the longest prompt, E width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)
from transformers.generation.streamers import BaseStreamer

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
    model: VisionLanguageModel,
    prompts: PackedBatch,
    sampling: Sampling,
    seeds: Sequence[int] | None = None,
    streamer: BaseStreamer | None = None,
) -> list[list[int]]:
    """Continue every sample of a packed batch.

    Args:
        model: as trained; left in the mode it was in.
        prompts: samples without their answers, packed like any batch: images of any size and
            number, or none.
        sampling: how to choose and when to stop.
        seeds: of what is drawn for each sample, so that a sample's answer does not depend on the
            others of its batch; `sampling.seed` and the sample's number together if left out.
        streamer: told every token as it is chosen; for a single sample.

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
        decoder = model.language_model
        positions = torch.arange(index.shape[1], device=index.device).expand_as(index)  # (N, L)
        if seeds is None:
            seeds = range(sampling.seed, sampling.seed + len(index))
        with decoder.prompted(index.shape, visual), model.attending(sight, visual, positions):
            ids: Tensor = decoder.model.generate(  # type: ignore[operator]
                inputs_embeds=embeddings,
                attention_mask=mask,
                generation_config=_generation_config(sampling),
                logits_processor=_drawing(sampling, seeds),
                streamer=streamer,
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
    return GenerationConfig(  # type: ignore[no-untyped-call]
        max_new_tokens=sampling.max_new_tokens,
        eos_token_id=sampling.end_token,
        pad_token_id=sampling.end_token,
        do_sample=False,  # what is drawn is drawn by the processors: see `_Draw`
    )


class _Draw(LogitsProcessor):
    """Scores plus Gumbel noise, whose largest is a draw from their softmax; one stream a sample.

    Transformers' own sampling draws for the whole batch from one stream, so that an answer would
    change with its neighbours.

    Args:
        seeds: of every sample.

    Source:
        Maddison et al. 2014, arXiv:1411.0030, section 2 (the Gumbel-max trick).
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        self._streams = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """(N, V) to the same; on the host, so that every device draws alike."""
        noise = torch.empty(scores.shape, dtype=torch.float32)
        for row, stream in zip(noise, self._streams, strict=True):
            row.exponential_(generator=stream)
        return scores - noise.log_().to(scores)


def _drawing(sampling: Sampling, seeds: Sequence[int]) -> LogitsProcessorList:
    """What stands between the decoder's scores and the choice of the largest."""
    if sampling.temperature == 0:
        return LogitsProcessorList()
    warpers: list[LogitsProcessor] = [TemperatureLogitsWarper(sampling.temperature)]
    if sampling.top_p < 1:
        warpers.append(TopPLogitsWarper(sampling.top_p))
    return LogitsProcessorList([*warpers, _Draw(seeds)])


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
