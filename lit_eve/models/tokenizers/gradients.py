"""How a gradient passes a quantizer that has none of its own: values exact, gradients estimated.

Shapes: N tokens, D channels.
"""

from __future__ import annotations

from typing import Any, Literal, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Estimator = Literal["straight_through", "rotation"]

TINY = 1e-6
"""Shortest length that is divided by."""


def straight_through(latent: Tensor, quantized: Tensor) -> Tensor:
    """`quantized` to the bit, with the gradient passed to `latent` as it is.

    Source:
        van den Oord et al. 2017, arXiv:1711.00937, section 3.2. Written as latent +
        (quantized - latent), as often, the value would be off by rounding.
    """
    return cast(Tensor, _StraightThrough.apply(latent, quantized))  # type: ignore[no-untyped-call]


def straight_through_and_distance(latent: Tensor, quantized: Tensor) -> tuple[Tensor, Tensor]:
    """`straight_through`, and the mean squared distance with its gradient to `latent`.

    Both in one: the difference is computed once, and both gradients in one pass.

    Args:
        latent: any shape.
        quantized: the same shape; it gets no gradient.
    """
    both = _StraightThroughAndDistance.apply(latent, quantized)  # type: ignore[no-untyped-call]
    return cast(tuple[Tensor, Tensor], both)


def rotation_trick(latent: Tensor, quantized: Tensor) -> Tensor:
    """`quantized` to the bit, with the gradient of the rotation and scaling that leads to it.

    The gradient at `latent` e is s R^T g with s = |q| / |e| and R the rotation of e onto q, so the
    angle between the gradient and q is kept between the gradient at e and e.

    Args:
        latent: (N, D).
        quantized: (N, D).

    Source:
        Fifty et al. 2024, arXiv:2410.06424, section 4: R = I - 2 r r^T + 2 q e^T over unit vectors.
    """
    return cast(Tensor, _RotationTrick.apply(latent, quantized))  # type: ignore[no-untyped-call]


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, latent: Tensor, quantized: Tensor) -> Tensor:
        return quantized.detach()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None


class _StraightThroughAndDistance(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, latent: Tensor, quantized: Tensor) -> tuple[Tensor, Tensor]:
        difference = latent - quantized
        ctx.save_for_backward(difference)
        flat = difference.flatten()
        return quantized.detach(), torch.dot(flat, flat) / len(flat)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, grad_distance: Tensor) -> tuple[Tensor, None]:
        (difference,) = ctx.saved_tensors
        return torch.addcmul(grad, difference, grad_distance * (2 / difference.numel())), None


class _RotationTrick(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, latent: Tensor, quantized: Tensor) -> Tensor:
        ctx.save_for_backward(latent, quantized)
        return quantized.detach()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        latent, quantized = ctx.saved_tensors
        length = latent.norm(dim=1, keepdim=True).clamp(min=TINY)  # (N, 1)
        reach = quantized.norm(dim=1, keepdim=True)  # (N, 1)
        source, target = latent / length, quantized / reach.clamp(min=TINY)  # (N, D)
        between = source + target
        between = between / between.norm(dim=1, keepdim=True).clamp(min=TINY)  # (N, D)
        turned = (
            grad
            - 2 * between * (between * grad).sum(1, keepdim=True)
            + 2 * source * (target * grad).sum(1, keepdim=True)
        )  # (N, D)
        return turned * (reach / length), None
