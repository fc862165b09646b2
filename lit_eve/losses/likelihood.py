"""Negative log-likelihoods of an image under a decoder's outputs.

All return nats (or what stands for them) of every value, (B, 3, H, W); their mean is the term of
the loss. With a KL whose weight is beta / (values per position) this is the negative evidence lower
bound of an image divided by its number of values, as Ramesh et al. 2021, A.2, have it.

Shapes: B images, H/W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

Likelihood = Callable[[Tensor, Tensor], Tensor]
"""(outputs, target) -> negative log-likelihood of every value."""


def logit_laplace(outputs: Tensor, target: Tensor, least_scale: float = 0.0) -> Tensor:
    """Of sigmoid(Y) with Y ~ Laplace(mean, b): log 2 + log b + log x(1 - x) + |logit x - mean| / b.

    A density: it has no lower bound, and negative values are normal. On perfectly flat areas, which
    drawings have and photographs have not, b goes to 0 and their gradient, sign / b, drowns that of
    everything else; with a least scale, b = exp(output) + least scale.

    Args:
        outputs: (B, 6, H, W): three means, then three log b.
        target: (B, 3, H, W), strictly inside (0, 1).
        least_scale: what b cannot fall below, in units of logit x; the paper has none.

    Source:
        Ramesh et al. 2021, arXiv:2102.12092, eq. 2.
    """
    mean, log_scale = outputs.to(_wide(outputs)).chunk(2, dim=1)  # (B, 3, H, W)
    if least_scale > 0:
        log_scale = torch.logaddexp(log_scale, log_scale.new_tensor(math.log(least_scale)))
    x = target.to(mean.dtype)
    distance = (torch.logit(x) - mean).abs() * torch.exp(-log_scale)
    return math.log(2) + log_scale + torch.log(x * (1 - x)) + distance


def absolute(outputs: Tensor, target: Tensor) -> Tensor:
    """L1: |output - target|, a Laplace of scale 1 up to a constant.

    Args:
        outputs: (B, 3, H, W).
        target: (B, 3, H, W).
    """
    return (outputs.to(_wide(outputs)) - target).abs()


def squared(outputs: Tensor, target: Tensor) -> Tensor:
    """L2: (output - target)^2, a Gaussian of variance 1/2 up to a constant.

    Args:
        outputs: (B, 3, H, W).
        target: (B, 3, H, W).
    """
    return (outputs.to(_wide(outputs)) - target).square()


def _wide(outputs: Tensor) -> torch.dtype:
    """At least float32: a likelihood in half precision loses what it measures."""
    return torch.promote_types(outputs.dtype, torch.float32)
