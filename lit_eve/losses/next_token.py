"""Cross-entropy of the next token, without ever holding all logits.

Shapes: R rows, T slots a row, L supervised tokens, E width, V vocabulary, N tokens of one chunk.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

IGNORE = -100
"""Label of a token that is not supervised."""


class LossSum(NamedTuple):
    """A loss as sum and count, so that shares of a batch can be added before dividing."""

    total: Tensor
    """Scalar: sum over the counted things, with its graph."""
    number: Tensor
    """Scalar int64: how many there were."""

    def mean(self) -> Tensor:
        """The average; 0, not NaN, if nothing was counted."""
        return self.total / self.number.clamp(min=1)


def next_token_loss(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    position_ids: Tensor,
    bias: Tensor | None = None,
    max_logits: int = 2**24,
) -> LossSum:
    """Cross-entropy of every supervised token given what stands before it in its sample.

    Only supervised tokens are looked at: their logits are made `max_logits` at a time, turned
    into loss and gradient at once, and dropped, so memory does not grow with tokens x vocabulary
    and nothing is computed twice.

    Args:
        hidden: final hidden states, (R, T, E).
        weight: of the head, (V, E).
        labels: (R, T) int64: the token at this slot if supervised, else `IGNORE`. The token at
            slot t is predicted from slot t - 1; the first one of a sample has nothing before it
            and is never counted.
        position_ids: (R, T) int64: 0 at the first token of every sample.
        bias: of the head, (V,).
        max_logits: most logits held at once.

    Returns:
        Sum in nats, in float32 at least, and the number of tokens; 0 and 0, with a graph, if none
        is supervised.
    """
    supervised = ((labels != IGNORE) & (position_ids > 0)).flatten()  # (R*T,)
    slots = supervised.nonzero().squeeze(1)  # (L,)
    before = hidden.flatten(0, 1).index_select(0, slots - 1)  # (L, E)
    target = labels.flatten().index_select(0, slots)  # (L,)
    chunk = max(1, max_logits // weight.shape[0])
    total: Tensor = _ChunkedCrossEntropy.apply(  # type: ignore[no-untyped-call]
        before, weight, bias, target, chunk, torch.is_grad_enabled()
    )
    return LossSum(total, supervised.sum())


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Sum of cross-entropies; the gradients are made in the forward pass, chunk by chunk.

    Since the output is a scalar, the backward pass only has to scale them.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        target: Tensor,
        chunk: int,
        grad_enabled: bool,
    ) -> Tensor:
        needs = [grad_enabled and need for need in ctx.needs_input_grad[:3]]
        kind = hidden.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
        inputs, head = hidden.to(dtype), weight.to(dtype)
        grad_hidden = torch.empty_like(hidden) if needs[0] else None
        grad_weight = torch.zeros_like(weight) if needs[1] else None
        grad_bias = torch.zeros_like(bias) if needs[2] and bias is not None else None
        total = hidden.new_zeros((), dtype=torch.promote_types(dtype, torch.float32))
        with torch.autocast(kind, enabled=False):
            for start in range(0, len(target), chunk):
                part = slice(start, start + chunk)
                loss, slope = _loss_and_slope(inputs[part], head, bias, target[part])
                total += loss
                if grad_hidden is not None:
                    grad_hidden[part] = slope.to(dtype) @ head
                if grad_weight is not None:
                    _add_product(grad_weight, slope.to(dtype).T, inputs[part])
                if grad_bias is not None:
                    grad_bias += slope.sum(0)
        ctx.save_for_backward(grad_hidden, grad_weight, grad_bias)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        scaled = [
            None if saved is None else saved * grad.to(saved.dtype) for saved in ctx.saved_tensors
        ]
        return (*scaled, None, None, None)


def _loss_and_slope(
    inputs: Tensor, head: Tensor, bias: Tensor | None, target: Tensor
) -> tuple[Tensor, Tensor]:
    """Loss of one chunk, a scalar, and its derivative by the logits, (N, V), at least float32."""
    logits = inputs @ head.T  # (N, V)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if bias is not None:
        logits += bias
    normaliser = logits.logsumexp(1, keepdim=True)  # (N, 1)
    index = target[:, None]  # (N, 1)
    loss = (normaliser - logits.gather(1, index)).sum()
    slope = logits.sub_(normaliser).exp_()  # (N, V), the logits are not needed again
    return loss, slope.scatter_add_(1, index, slope.new_full(index.shape, -1.0))


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """`total += left @ right`, in the precision of `total` and without a copy where they agree."""
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    else:
        total += left @ right
