"""Numbers that change during training: pure functions of the optimizer step.

Nothing here counts, so a resumed run needs no saved counter, and nothing here imports torch, so the
experiment file is checked with the very functions that train it.

Every curve goes from `start` at step 0 to `end` at step `steps` and stays there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Protocol


class Curve(Protocol):
    """A schedule: where a number stands at a step."""

    def __call__(self, step: float, *, start: float, end: float, steps: float) -> float:
        """The number at `step`."""


def constant(step: float, *, start: float, end: float, steps: float) -> float:
    """`start` for ever.

    Raises:
        ValueError: if `end` is another number, which would be ignored.
    """
    _progress(step, steps)
    if end != start:
        raise ValueError(
            f"a constant schedule cannot go from {start} to {end}: the end would be ignored. "
            "Leave the end out, or choose cosine, linear or exponential."
        )
    return start


def linear(step: float, *, start: float, end: float, steps: float) -> float:
    """A straight line."""
    return start + (end - start) * _progress(step, steps)


def cosine(step: float, *, start: float, end: float, steps: float) -> float:
    """Half a cosine wave: flat at both ends, steepest in the middle.

    Source:
        Loshchilov & Hutter 2017, arXiv:1608.03983, eq. 5, without restarts.
    """
    return end + (start - end) * (1 + math.cos(math.pi * _progress(step, steps))) / 2


def quarter_cosine(step: float, *, start: float, end: float, steps: float) -> float:
    """A quarter of a cosine wave: flat at the start, steepest at the end.

    Source:
        The second reading of "cosine" in Ramesh et al. 2021, arXiv:2102.12092, A.2, as karpathy's
        deep-vector-quantization has it (`cos_anneal`).
    """
    return start + (end - start) * (1 - math.cos(math.pi / 2 * _progress(step, steps)))


def exponential(step: float, *, start: float, end: float, steps: float) -> float:
    """The same factor every step: a straight line on a logarithmic axis.

    Raises:
        ValueError: if `start` or `end` is not positive.
    """
    if start <= 0 or end <= 0:
        raise ValueError(
            f"an exponential schedule cannot go from {start} to {end}: it multiplies by the same "
            "factor every step, so it never reaches zero. Give two positive numbers."
        )
    return start * math.pow(end / start, _progress(step, steps))


def warmup(step: float, *, steps: float) -> float:
    """A multiplier that rises in equal parts and is 1 from step `steps` on.

    Step 0 already moves: it gets 1 / (steps + 1), the first of `steps + 1` equal parts, since an
    optimizer step at rate 0 would be wasted. `steps` of 0 is no warm-up.
    """
    if step < 0 or steps < 0:
        raise ValueError(f"warm-up of {steps} steps at step {step}: neither may be negative.")
    return min(1.0, (step + 1) / (steps + 1))


def _progress(step: float, steps: float) -> float:
    """The share of the way that is done, 0 to 1."""
    if steps <= 0:
        raise ValueError(
            f"a schedule over {steps} steps has no way to go from its start to its end. "
            "Give a positive number of steps."
        )
    if step < 0:
        raise ValueError(f"step {step} lies before training began: steps count from 0.")
    return min(step / steps, 1.0)


CURVES: Mapping[str, Curve] = MappingProxyType(
    {
        "constant": constant,
        "linear": linear,
        "cosine": cosine,
        "quarter_cosine": quarter_cosine,
        "exponential": exponential,
    }
)
"""The schedules that an experiment file can name."""


def curve(name: str) -> Curve:
    """The schedule called `name`.

    Raises:
        ValueError: naming all there are.
    """
    if name not in CURVES:
        raise ValueError(f"there is no schedule {name!r}. Choose one of {', '.join(CURVES)}.")
    return CURVES[name]


def schedule(
    name: str, *, start: float, end: float, steps: float, warmup_steps: float = 0
) -> Callable[[int], float]:
    """A function of the step alone: the curve called `name`, times a warm-up.

    The curve starts at step 0, not at the end of the warm-up.

    Raises:
        ValueError: if the name or the numbers are impossible; here, not at the first step.
    """
    shape = curve(name)
    shape(0, start=start, end=end, steps=steps)
    warmup(0, steps=warmup_steps)

    def value(step: int) -> float:
        return shape(step, start=start, end=end, steps=steps) * warmup(step, steps=warmup_steps)

    return value
