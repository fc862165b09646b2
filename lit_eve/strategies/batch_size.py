"""The largest batch that fits, found without running out of memory.

Running out in the middle of a step leaves the other ranks in a collective for ever, so it is not
tried: peaks of small batches predict larger ones, and only what is predicted to fit is measured.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

MARGIN = 0.06
"""Share of the memory left free: fragmentation, and what NCCL takes later."""


def largest_that_fits(
    measure: Callable[[int], int],
    limit: int,
    smallest: int,
    step: int = 1,
    largest: int | None = None,
) -> int:
    """The largest size whose peak stays below `limit`.

    Doubles while the next size is predicted to fit, then closes in between.

    Args:
        measure: runs dry steps at a size (tokens a row, rows) and gives the peak in bytes; on
            several ranks the largest of them, see `peak_over_ranks`.
        limit: bytes that there are; `MARGIN` of it stays free.
        smallest: size to begin with.
        step: sizes are multiples of it.
        largest: size beyond which nobody asks.

    Returns:
        A size that was measured to fit.

    Raises:
        ValueError: if the smallest size does not fit, saying by how much.
    """
    allowed = int(limit * (1 - MARGIN))
    peaks = {smallest: measure(smallest)}
    if peaks[smallest] > allowed:
        raise ValueError(
            f"even a size of {smallest} needs {peaks[smallest] / 2**30:.2f} GiB of "
            f"{limit / 2**30:.2f}: shard the model (strategy: fsdp), switch on "
            "activation_checkpointing, or take a smaller model."
        )
    good, bad = smallest, (largest // step + 1) * step if largest is not None else None
    while bad is None or good + step < bad:
        proposal = 2 * good if bad is None or 2 * good < bad else (good + bad) // 2
        proposal = max(good + step, proposal // step * step)
        if predict(peaks, proposal) > allowed:
            bad = proposal
            continue
        peaks[proposal] = measure(proposal)
        if peaks[proposal] > allowed:
            bad = proposal
        else:
            good = proposal
    return good


def predict(peaks: dict[int, int], size: int) -> float:
    """The peak at a size, from the two or three largest that were measured.

    A line through the last two, or a parabola through the last three where that is higher: dense
    attention grows with the square. One point alone is scaled by the square.
    """
    known = sorted(peaks)[-3:]
    if len(known) == 1:
        return peaks[known[0]] * (size / known[0]) ** 2
    near, far = known[-2], known[-1]
    line = _line(near, peaks[near], far, peaks[far], size)
    if len(known) == 2:
        return line
    first = known[0]
    slope = (peaks[near] - peaks[first]) / (near - first)
    bend = ((peaks[far] - peaks[near]) / (far - near) - slope) / (far - first)
    return line + max(0.0, bend) * (size - near) * (size - far)


def peak_over_ranks(device: torch.device) -> int:
    """The largest peak of any rank's device since the last call; every rank must come here."""
    peak = torch.tensor([torch.cuda.max_memory_allocated(device)], device=device)
    torch.cuda.reset_peak_memory_stats(device)
    if torch.distributed.is_initialized():
        torch.distributed.all_reduce(peak, torch.distributed.ReduceOp.MAX)
    return int(peak)


def _line(x0: int, y0: float, x1: int, y1: float, x: int) -> float:
    return y1 + (y1 - y0) * (x - x1) / (x1 - x0)
