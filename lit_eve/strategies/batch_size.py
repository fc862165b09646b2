"""The largest batch that fits, by measuring few sizes.

The peaks of two small batches predict larger ones, and then only what is predicted to fit is
measured: running out of memory takes time, and on a CPU the system may end other processes first.
"""

from __future__ import annotations

from collections.abc import Callable

MARGIN = 0.06
"""Share of the memory left free: fragmentation, and what NCCL takes later."""


def largest_that_fits(
    measure: Callable[[int], int | None],
    limit: int,
    smallest: int,
    step: int = 1,
    largest: int | None = None,
) -> int:
    """The largest size whose peak stays below `limit`.

    Doubles while the next size is predicted to fit, then closes in between.

    Args:
        measure: makes dry steps at a size and gives the peak in bytes, None if they ran out.
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
    first = measure(smallest)
    if first is None or first > allowed:
        needed = "more" if first is None else f"{first / 2**30:.2f} GiB"
        raise ValueError(
            f"even a size of {smallest} needs {needed}, and there are {limit / 2**30:.2f} GiB: "
            "shard the model (strategy: fsdp), switch on activation_checkpointing, lower "
            "tokens_per_row, or take a smaller model."
        )
    peaks = {smallest: first}
    good, bad = smallest, (largest // step + 1) * step if largest is not None else None
    while bad is None or good + step < bad:
        proposal = 2 * good if bad is None or 2 * good < bad else (good + bad) // 2
        proposal = max(good + step, proposal // step * step)
        if len(peaks) > 1 and predict(peaks, proposal) > allowed:
            bad = proposal
            continue
        peak = measure(proposal)
        if peak is not None:
            peaks[proposal] = peak
        if peak is None or peak > allowed:
            bad = proposal
        else:
            good = proposal
    return good


def predict(peaks: dict[int, int], size: int) -> float:
    """The peak at a size, from the two or three largest that were measured.

    A line through the last two, or a parabola through the last three where that is higher: dense
    attention grows with the square of a row's length.
    """
    known = sorted(peaks)[-3:]
    near, far = known[-2], known[-1]
    line = _line(near, peaks[near], far, peaks[far], size)
    if len(known) == 2:
        return line
    first = known[0]
    slope = (peaks[near] - peaks[first]) / (near - first)
    bend = ((peaks[far] - peaks[near]) / (far - near) - slope) / (far - first)
    return line + max(0.0, bend) * (size - near) * (size - far)


def _line(x0: int, y0: float, x1: int, y1: float, x: int) -> float:
    return y1 + (y1 - y0) * (x - x1) / (x1 - x0)
