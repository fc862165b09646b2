"""Codebooks that tests/distributed train on every rank, each on its share of a batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch import distributed as dist

from lit_eve.metrics.codebook import CodebookUsage
from lit_eve.models.tokenizers.codebook import Codebook, EmaCodebook, LearnedCodebook, Liveliness
from lit_eve.models.tokenizers.lfq import EntropyLoss, LookupFreeQuantizer
from lit_eve.models.tokenizers.ranks import mean_over_ranks, sum_over_ranks
from lit_eve.models.tokenizers.standardize import Standardize
from lit_eve.models.tokenizers.vector import VectorQuantizer

BOOKS: dict[str, type[Codebook]] = {"averages": EmaCodebook, "loss": LearnedCodebook}


@dataclass(frozen=True)
class Case:
    """One training of a codebook."""

    liveliness: Liveliness
    book: Literal["averages", "loss"] = "averages"
    steps: int = 8


def shares() -> tuple[int, int]:
    """This rank and the number of ranks; one process is rank 0 of 1."""
    started = dist.is_initialized()
    return (dist.get_rank(), dist.get_world_size()) if started else (0, 1)


def part(whole: Tensor) -> Tensor:
    """This rank's images of a joined batch: the first ranks have one more if they do not divide."""
    rank, world = shares()
    return torch.tensor_split(whole, world)[rank]


def batch(step: int, images: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(step)
    return torch.randn(images, 4, 4, 4, generator=generator) + 3


def train_codebook(case: Case) -> dict[str, Tensor]:
    """The state after training; the optimizer averages gradients over ranks as DDP does."""
    torch.manual_seed(0)
    book = BOOKS[case.book](24, 4, liveliness=case.liveliness)
    quantizer = VectorQuantizer(book)
    rank, world = shares()
    torch.manual_seed(10 + rank)  # ranks draw their own random numbers
    parameters = list(quantizer.parameters())
    optimizer = torch.optim.SGD(parameters, lr=0.5) if parameters else None
    replaced = 0
    for step in range(case.steps):
        whole = batch(step)
        mine = part(whole)
        out = quantizer(mine)
        replaced += int(out.statistics["replaced_codes"])
        if optimizer is not None:
            # Means over a rank's own images weigh as many as it has.
            loss = sum(out.losses.values(), torch.zeros(())) * len(mine) / len(whole)
            gradients = torch.autograd.grad(loss, parameters)
            for parameter, gradient in zip(parameters, gradients, strict=True):
                if world > 1:
                    dist.all_reduce(gradient)
                parameter.grad = gradient
            optimizer.step()
    return {**quantizer.state_dict(), "replaced": torch.tensor(replaced)}


def entropy_gradient() -> tuple[Tensor, Tensor]:
    """Gradient of LFQ's entropy loss at a shared scale, averaged over ranks, and its value."""
    quantizer = LookupFreeQuantizer(5, EntropyLoss(1.0, 1.0, 1.0))
    generator = torch.Generator().manual_seed(0)
    whole = torch.randn(4, 5, 2, 2, generator=generator)
    scale = torch.ones(5, requires_grad=True)
    out = quantizer(part(whole) * scale.view(1, 5, 1, 1))
    (gradient,) = torch.autograd.grad(out.losses["entropy"], scale)
    _, world = shares()
    if world > 1:
        dist.all_reduce(gradient)
    value = mean_over_ranks(out.losses["entropy"].detach())
    return gradient / world, value


def standardized() -> dict[str, Tensor]:
    """This rank's values and gradients, summed over ranks at their places, and the averages."""
    layer = Standardize(4)
    generator = torch.Generator().manual_seed(0)
    whole = torch.randn(7, 4, generator=generator) * 3 + 5
    weights = torch.randn(7, 4, generator=generator)
    layer(part(whole * 2 - 1))  # so that the averages are not those of the batch
    source = whole.clone().requires_grad_()
    found = layer(part(source))
    (gradient,) = torch.autograd.grad((found * part(weights)).sum(), source)
    values = torch.zeros_like(whole)
    part(values).copy_(found.detach())
    sum_over_ranks(gradient, values)
    return {"values": values, "gradient": gradient, **layer.state_dict()}


def usage() -> dict[str, float]:
    """Usage of the joined codes."""
    metric = CodebookUsage(64)
    generator = torch.Generator().manual_seed(0)
    metric.update(part(torch.randint(64, (4, 5, 5), generator=generator)))
    return {name: float(value) for name, value in metric.compute().items()}
