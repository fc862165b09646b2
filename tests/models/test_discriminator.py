from __future__ import annotations

import pytest
import torch

from lit_eve.models.tokenizers.discriminator import PatchDiscriminator, gradient_norm


def test_scores_are_of_patches() -> None:
    torch.manual_seed(0)
    critic = PatchDiscriminator(8, 3)
    assert critic(torch.rand(2, 3, 64, 96)).shape == (2, 1, 6, 10)
    image = torch.rand(1, 3, 96, 96)
    changed = image.clone()
    changed[..., 90:] = 0
    assert not torch.equal(critic(image)[..., -1], critic(changed)[..., -1])


def test_a_score_does_not_depend_on_the_other_images() -> None:
    torch.manual_seed(0)
    critic = PatchDiscriminator(8, 2)
    batch = torch.rand(3, 3, 32, 32)
    torch.testing.assert_close(critic(batch)[:1], critic(batch[:1]))


def test_judging_sends_gradients_to_the_images_only() -> None:
    torch.manual_seed(0)
    critic = PatchDiscriminator(8, 2)
    images = torch.rand(1, 3, 32, 32, requires_grad=True)
    scores = critic.judge(images)
    assert torch.equal(scores, critic(images))
    scores.sum().backward()  # type: ignore[no-untyped-call]
    assert images.grad is not None
    assert all(weight.grad is None for weight in critic.parameters())


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_the_smallest_image_is_judged_and_a_smaller_one_is_refused(layers: int) -> None:
    critic = PatchDiscriminator(4, layers)
    assert critic(torch.rand(1, 3, critic.smallest, critic.smallest)).numel() >= 1
    with pytest.raises(ValueError, match=rf"needs {critic.smallest}: use larger images"):
        critic(torch.rand(1, 3, critic.smallest - 1, 200))


def test_the_norm_of_a_gradient_leaves_the_graph() -> None:
    weight = torch.tensor([3.0, 4.0], requires_grad=True)
    loss = (weight * torch.tensor([3.0, 4.0])).sum()
    assert gradient_norm(loss, weight).item() == 5.0
    loss.backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None
