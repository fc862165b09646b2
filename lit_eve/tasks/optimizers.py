"""Parameter groups and learning rates: one table of parts serves every task.

A part is a name in the model's own tree (`language_model`, `patch_embedding.project`), or several
by a pattern (`language_model.*.vision`). Each part has a rate: a pure function of the optimizer
step, so a resumed run needs no counter of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from lit_eve_callbacks.parts import missing_part, most_specific

Rate = Callable[[int], float]
"""Optimizer step -> learning rate."""

FROZEN = "frozen"
"""The group of everything a stage does not train: no gradients, so AdamW leaves it alone."""


@dataclass(frozen=True)
class AdamWOptions:
    """What AdamW takes besides the learning rate (Loshchilov & Hutter 2019, arXiv:1711.05101)."""

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0


def one(step: int) -> float:
    """A weight that changes nothing."""
    return 1.0


def part_of(name: str, parts: Mapping[str, object]) -> str:
    """The most specific part that holds parameter `name`, or `FROZEN`."""
    return most_specific(name, parts) or FROZEN


def check_parts(model: nn.Module, parts: Mapping[str, object]) -> None:
    """Stop before training when a part names nothing in the model.

    Raises:
        ValueError: naming the part and the nearest names that exist.
    """
    missing = missing_part((name for name, _ in model.named_parameters()), parts)
    if missing is not None:
        raise ValueError(
            f"train: {missing[0]!r} is no part of the model, so nothing would learn under that "
            f"name. Nearest: {', '.join(missing[1])}."
        )


def build_adamw(
    model: nn.Module, rates: Mapping[str, Rate], options: AdamWOptions
) -> tuple[AdamW, LambdaLR]:
    """AdamW over every parameter of `model`, grouped by part, with each part's own rate.

    Frozen parameters are in the optimizer too: what is missing there can never be thawed, and AdamW
    neither decays nor keeps state for a parameter without a gradient. Weight decay applies to
    matrices only, not to biases, norms and single tokens.

    Raises:
        ValueError: if a part names nothing in the model.
    """
    check_parts(model, rates)
    groups: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        groups.setdefault((part_of(name, rates), parameter.ndim > 1), []).append(parameter)
    optimizer = AdamW(
        [
            {
                "params": parameters,
                "name": part if decays else f"{part} (no decay)",
                "weight_decay": options.weight_decay if decays else 0.0,
            }
            for (part, decays), parameters in groups.items()
        ],
        lr=1.0,  # LambdaLR multiplies it: the rates are learning rates, not factors
        betas=options.betas,
        eps=options.eps,
        fused=True,  # one kernel; and a step with a gradient that is not finite is skipped in it
    )
    schedule = LambdaLR(optimizer, [rates.get(part, _zero) for part, _ in groups])
    return optimizer, schedule


def _zero(step: int) -> float:
    return 0.0
