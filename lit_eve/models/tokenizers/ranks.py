"""What the processes of a run must agree on. With one process, every function changes nothing.

Shapes: N tokens on this rank, D channels, M rows picked.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch import distributed as dist


def several() -> bool:
    """Whether more than one process trains."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def sum_over_ranks(*tensors: Tensor) -> None:
    """Add up each tensor over all ranks, in place, in one exchange."""
    if not several():
        return
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    dist.all_reduce(flat)
    sizes = [tensor.numel() for tensor in tensors]
    for tensor, part in zip(tensors, torch.split(flat, sizes), strict=True):
        tensor.copy_(part.view_as(tensor))


def sum_with_gradient(tensor: Tensor) -> Tensor:
    """The sum over all ranks, whose gradient is the sum of all ranks' gradients.

    Data-parallel training divides what reaches the weights by the number of ranks, as it should:
    each rank's loss is a mean over its own samples.
    """
    if not several():
        return tensor
    from torch.distributed.nn.functional import all_reduce

    summed: Tensor = all_reduce(tensor)  # type: ignore[no-untyped-call]
    return summed


def first_rank_decides(tensor: Tensor) -> Tensor:
    """Rank 0's values of something random, on every rank."""
    if several():
        dist.broadcast(tensor, src=0)
    return tensor


def mean_over_ranks(value: Tensor) -> Tensor:
    """The mean over all ranks, whose gradient is that of this rank's own value.

    Data-parallel training averages the gradients of the ranks afterwards, so this is what makes a
    function of the mean have the gradient that one process with all the samples would compute.
    """
    if not several():
        return value
    mean = value.detach().clone()
    dist.all_reduce(mean)
    return value + (mean / dist.get_world_size() - value.detach())


def rows_of_all(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Where this rank's tokens start among those of all ranks, and how many there are.

    Returns:
        Two int64 scalars on the tokens' device, which is never asked for their values.
    """
    own = torch.tensor([len(tokens)], device=tokens.device)
    if not several():
        return torch.zeros_like(own[0]), own[0]
    lengths = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(lengths, own)
    every = torch.cat(lengths)
    return every[: dist.get_rank()].sum(), every.sum()


def pick_rows(tokens: Tensor, picks: Tensor, first: Tensor) -> Tensor:
    """Rows of the tokens of all ranks put one after another, the same on every rank.

    Args:
        tokens: this rank's, (N, D).
        picks: (M,) int64, the same on every rank.
        first: where this rank's tokens start, from `rows_of_all`.

    Returns:
        (M, D): the rows one process would pick from the joined batch.
    """
    local = picks - first
    mine = (local >= 0) & (local < len(tokens))
    rows = tokens[local.clamp(0, len(tokens) - 1)] * mine.unsqueeze(1)  # (M, D)
    sum_over_ranks(rows)
    return rows
