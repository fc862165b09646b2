"""Distance to a teacher, averaged over the cells of an image, then over images."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from lit_eve.losses.alignment import alignment_loss

# Worked by hand: image one has cells at angles 0 and 90 degrees, image two one at 180.
FEATURES = torch.tensor([[2.0, 0.0], [0.0, 3.0], [1.0, 1.0]])
TEACHER = torch.tensor([[5.0, 0.0], [1.0, 0.0], [-2.0, -2.0]])
GRIDS = ((1, 2), (1, 1))


def test_each_image_counts_the_same_however_many_cells_it_has() -> None:
    loss = alignment_loss(FEATURES, TEACHER, GRIDS)
    assert loss.number.item() == 2
    assert loss.mean().item() == pytest.approx(((0 + 1) / 2 + 2) / 2)


def test_normalised_mean_squares_are_two_over_the_channels_of_the_cosine() -> None:
    torch.manual_seed(0)
    features, target = torch.randn(6, 7), torch.randn(6, 7)
    squares = F.normalize(features, dim=1) - F.normalize(target, dim=1)
    mse = alignment_loss(features, target, ((2, 3),), "mse").mean()
    assert mse.item() == pytest.approx(squares.square().mean().item(), rel=1e-5)
    cosine = alignment_loss(features, target, ((2, 3),)).mean()
    assert mse.item() == pytest.approx(2 / 7 * cosine.item(), rel=1e-5)


def test_gradients_reach_the_student_only() -> None:
    features, target = FEATURES.clone().requires_grad_(), TEACHER.clone().requires_grad_()
    torch.autograd.backward(alignment_loss(features, target, GRIDS).mean())
    assert features.grad is not None
    assert features.grad.any()
    assert target.grad is None


def test_no_images_are_zero_with_a_graph() -> None:
    features = torch.zeros(0, 2, requires_grad=True)
    loss = alignment_loss(features, torch.zeros(0, 2), ())
    assert loss.mean().item() == 0
    assert loss.total.requires_grad


def test_a_student_of_another_width_is_refused() -> None:
    with pytest.raises(ValueError, match="Give the patch alignment the teacher's width"):
        alignment_loss(FEATURES, torch.zeros(3, 4), GRIDS)
