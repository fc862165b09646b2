from __future__ import annotations

from pathlib import Path
from typing import NoReturn
from urllib.error import URLError

import pytest
import torch
from torchmetrics.functional.image import lpips

from lit_eve.losses.perceptual import PerceptualLoss


@pytest.fixture
def loss() -> PerceptualLoss:
    """torchmetrics' network with its own linear layers and a random backbone."""
    torch.manual_seed(0)
    return PerceptualLoss(lpips._LPIPS(pretrained=True, net="alex", pnet_rand=True))


def test_equal_images_have_no_distance_and_others_some(loss: PerceptualLoss) -> None:
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    assert loss(images, images).item() == 0
    assert loss(images, -images).item() > 1e-3


def test_gradients_reach_the_images_and_not_the_network(loss: PerceptualLoss) -> None:
    images = torch.zeros(1, 3, 64, 64, requires_grad=True)
    loss(images, torch.ones(1, 3, 64, 64)).backward()  # type: ignore[no-untyped-call]
    assert images.grad is not None
    assert float(images.grad.abs().sum()) > 0
    assert all(not weight.requires_grad for weight in loss.network.parameters())


def test_missing_weights_are_an_error_that_says_where_they_go(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def offline(*_: object, **__: object) -> NoReturn:
        raise URLError("no network")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    with pytest.raises(ValueError, match=rf"no network.*Put them into {tmp_path}/checkpoints"):
        PerceptualLoss.pretrained("vgg")
