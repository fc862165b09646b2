from __future__ import annotations

import pytest
import torch

from lit_eve.losses.adversarial import adaptive_weight, fooling, hinge


# Worked by hand: half of mean(relu(1 - real)) + mean(relu(1 + fake)).
@pytest.mark.parametrize(
    ("real", "fake", "loss"),
    [([0.0], [0.0], 1.0), ([2.0], [-3.0], 0.0), ([0.5, 2.0], [-0.5, 1.0], (0.25 + 1.25) / 2)],
)
def test_the_hinge_wants_real_above_1_and_fake_below_minus_1(
    real: list[float], fake: list[float], loss: float
) -> None:
    assert hinge(torch.tensor(real), torch.tensor(fake)).item() == pytest.approx(loss)


def test_fooling_is_minus_the_mean_score() -> None:
    assert fooling(torch.tensor([1.0, 3.0])).item() == -2.0


def test_the_adaptive_weight_balances_the_gradients_and_is_bounded() -> None:
    weight = adaptive_weight(torch.tensor(3.0, requires_grad=True), torch.tensor(1.5))
    assert weight.item() == pytest.approx(3.0 / 1.5001)
    assert not weight.requires_grad
    assert adaptive_weight(torch.tensor(3.0), torch.tensor(0.0)).item() == 1e4
