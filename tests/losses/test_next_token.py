"""The chunked loss against PyTorch's own on all logits at once."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lit_eve.losses.next_token import IGNORE, LossSum, next_token_loss
from tests.models.recording import Recording

VOCABULARY = 11


def plain(hidden: Tensor, weight: Tensor, labels: Tensor, bias: Tensor | None) -> Tensor:
    """Sum of cross-entropies; every label is scored from the slot before it."""
    logits = F.linear(hidden, weight, bias)[:, :-1]  # (R, T-1, V)
    return F.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), reduction="sum")


def inputs(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    hidden = torch.randn(3, 7, 5, dtype=dtype, requires_grad=True)
    weight = torch.randn(VOCABULARY, 5, dtype=dtype, requires_grad=True)
    bias = torch.randn(VOCABULARY, dtype=dtype, requires_grad=True)
    labels = torch.randint(VOCABULARY, (3, 7))
    labels[torch.rand(3, 7) < 0.4] = IGNORE
    labels[:, 0] = IGNORE
    return hidden, weight, bias, labels, torch.arange(7).expand(3, 7)


@pytest.mark.parametrize("tokens_a_chunk", [1, 4, 100])
@pytest.mark.parametrize("with_bias", [True, False])
def test_loss_and_gradients_equal_those_of_all_logits(tokens_a_chunk: int, with_bias: bool) -> None:
    hidden, weight, bias, labels, positions = inputs()
    used = bias if with_bias else None
    leaves = [hidden, weight, *([bias] if with_bias else [])]
    loss = next_token_loss(hidden, weight, labels, positions, used, tokens_a_chunk * VOCABULARY)
    wanted = plain(hidden, weight, labels, used)
    torch.testing.assert_close(loss.total, wanted)
    assert loss.number.item() == (labels != IGNORE).sum().item()
    got = torch.autograd.grad(2.5 * loss.total, leaves)
    torch.testing.assert_close(list(got), list(torch.autograd.grad(2.5 * wanted, leaves)))


def test_a_label_is_predicted_from_the_slot_before_it() -> None:
    # Worked by hand: hidden state 0 scores token 1 with log 3, the others with 0: p = 3 / 5.
    hidden = torch.tensor([[[1.0], [100.0]]])
    weight = torch.tensor([0.0, 3.0, 1.0]).log().clamp(min=0)[:, None]
    loss = next_token_loss(hidden, weight, torch.tensor([[IGNORE, 1]]), torch.tensor([[0, 1]]))
    assert loss.mean().item() == pytest.approx(-torch.tensor(3 / 5).log().item())


def test_the_first_token_of_a_sample_is_never_predicted_from_its_neighbour() -> None:
    hidden, weight, _, labels, _ = inputs()
    labels = torch.randint(VOCABULARY, labels.shape)
    positions = torch.tensor([[0, 1, 2, 0, 1, 0, 0]]).expand(3, 7)
    loss = next_token_loss(hidden, weight, labels, positions)
    assert loss.number.item() == 3 * 3
    kept = labels.masked_fill(positions == 0, IGNORE)
    torch.testing.assert_close(loss.total, plain(hidden, weight, kept, None))


def test_nothing_supervised_is_zero_with_zero_gradients() -> None:
    hidden, weight, bias, labels, positions = inputs(torch.float32)
    loss = next_token_loss(hidden, weight, torch.full_like(labels, IGNORE), positions, bias)
    assert loss.mean().item() == 0
    for gradient in torch.autograd.grad(loss.mean(), (hidden, weight, bias)):
        assert not gradient.any()


def test_a_frozen_head_gets_no_gradient_and_hidden_states_still_do() -> None:
    hidden, weight, _, labels, positions = inputs()
    wanted = torch.autograd.grad(plain(hidden, weight, labels, None), hidden)[0]
    loss = next_token_loss(hidden, weight.detach(), labels, positions)
    torch.testing.assert_close(torch.autograd.grad(loss.total, hidden)[0], wanted)


def test_evaluation_makes_no_gradients() -> None:
    hidden, weight, _, labels, positions = inputs()
    with torch.no_grad():
        loss = next_token_loss(hidden, weight, labels, positions)
    assert not loss.total.requires_grad


def test_low_precision_sums_in_float32() -> None:
    hidden, weight, _, labels, positions = inputs()
    wanted = plain(hidden, weight, labels, None).item()
    low = (hidden.detach().bfloat16().requires_grad_(), weight.detach().requires_grad_())
    with torch.autocast("cpu", torch.bfloat16):
        loss = next_token_loss(low[0], low[1].float(), labels, positions, max_logits=VOCABULARY)
    assert loss.total.dtype == torch.float32
    assert loss.total.item() == pytest.approx(wanted, rel=2e-2)
    grads = torch.autograd.grad(loss.total, low)
    assert [g.dtype for g in grads] == [torch.bfloat16, torch.float64]
    exact = torch.autograd.grad(plain(hidden, weight, labels, None), weight)[0]
    torch.testing.assert_close(grads[1], exact, atol=0.1, rtol=0.05)


def test_all_logits_are_never_held_at_once() -> None:
    hidden = torch.randn(1, 65, 4, requires_grad=True)
    weight = torch.randn(1000, 4, requires_grad=True)
    labels = torch.randint(1000, (1, 65))
    with Recording() as recorded:
        loss = next_token_loss(hidden, weight, labels, torch.arange(65)[None], max_logits=8000)
        torch.autograd.grad(loss.total, (hidden, weight))
    assert recorded.largest == 8000  # of 64 x 1000 logits


def test_a_sum_of_nothing_has_the_mean_zero() -> None:
    assert LossSum(torch.tensor(0.0), torch.tensor(0)).mean().item() == 0
