"""How likely given answers are, many at once.

Shapes: R rows, T slots a row, N samples of the batch, L supervised tokens, E width, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lit_eve.losses.next_token import IGNORE
from lit_eve.models.vision_language import VisionLanguageModel
from lit_eve_data.batches import PackedBatch


@dataclass(frozen=True)
class Likelihood:
    """Of one answer."""

    total: float
    """Logarithm of its probability, in nats."""
    tokens: int
    """How many tokens it is the sum of."""
    greedy: bool
    """Whether every token is the likeliest one."""


@torch.no_grad()
def answer_likelihoods(
    model: VisionLanguageModel, batch: PackedBatch, max_logits: int = 2**24
) -> list[Likelihood]:
    """The likelihood of every sample's supervised tokens, given what stands before each.

    Args:
        model: in evaluation mode.
        batch: samples with the answers that are in question.
        max_logits: most logits held at once.
    """
    supervised = ((batch.labels != IGNORE) & (batch.position_ids > 0)).flatten()  # (R*T,)
    slots = supervised.nonzero().squeeze(1)  # (L,)
    target = batch.labels.flatten()[slots]  # (L,)
    before = model(batch).hidden.flatten(0, 1)[slots - 1]  # (L, E)
    found, likeliest = [torch.zeros(0, device=slots.device)], [slots.new_zeros(0).bool()]
    chunk = max(1, max_logits // model.language_model.vocabulary)
    for start in range(0, len(slots), chunk):
        logits = model.language_model.logits(before[start : start + chunk]).float()  # (L', V)
        wanted = target[start : start + chunk]
        found.append(logits.log_softmax(1).gather(1, wanted[:, None]).squeeze(1))
        likeliest.append(logits.argmax(1) == wanted)
    owner = _samples(batch).flatten()[slots]  # (L,)
    number = batch.num_samples
    totals = torch.zeros(number, device=slots.device, dtype=torch.float64)
    totals = totals.index_add(0, owner, torch.cat(found).double())
    counts = torch.bincount(owner, minlength=number)
    matching = torch.bincount(owner, torch.cat(likeliest).double(), minlength=number)
    return [
        Likelihood(total, count, count == right)
        for total, count, right in zip(
            totals.tolist(), counts.tolist(), matching.long().tolist(), strict=True
        )
    ]


def _samples(batch: PackedBatch) -> Tensor:
    """The number of the sample that every slot belongs to, (R, T) int64; padding has any."""
    rows, segments = batch.sample_segments.unbind(1)  # (N,) each
    most = int(batch.segment_ids.max()) + 1
    table = torch.zeros(len(batch.segment_ids), most, dtype=torch.int64, device=rows.device)
    table[rows, segments] = torch.arange(batch.num_samples, device=rows.device)
    return table.gather(1, batch.segment_ids)
