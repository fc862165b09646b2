"""LPIPS as a loss: distance of two images in the features of a network trained to see.

Shapes: B images, H/W pixels.
"""

from __future__ import annotations

from typing import Literal
from urllib.error import URLError

import torch
from torch import Tensor, nn
from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

Backbone = Literal["vgg", "alex"]


class PerceptualLoss:
    """LPIPS (Zhang et al. 2018, arXiv:1801.03924) through torchmetrics.

    Not a module: the frozen network belongs in neither the optimizer nor a checkpoint. It follows
    the device of the images.

    Args:
        network: images (B, 3, H, W) in [-1, 1], twice -> distances, one an image.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network.eval().requires_grad_(False)

    @classmethod
    def pretrained(cls, backbone: Backbone = "vgg") -> PerceptualLoss:
        """With ImageNet weights, which torchvision keeps in torch's hub folder or downloads.

        Raises:
            ValueError: if the weights are neither there nor can be fetched.
        """
        try:
            return cls(LearnedPerceptualImagePatchSimilarity(net_type=backbone).net)
        except (URLError, OSError, ModuleNotFoundError) as error:
            raise ValueError(
                f"LPIPS needs torchvision's ImageNet weights of {backbone}, which could not be "
                f"had ({error}). Put them into {torch.hub.get_dir()}/checkpoints, or take the "
                "perceptual loss or metric out."
            ) from error

    def __call__(self, images: Tensor, originals: Tensor) -> Tensor:
        """Mean distance of images to originals, both (B, 3, H, W) in [-1, 1]; a scalar."""
        self.network.to(images.device)
        with torch.autocast(images.device.type, enabled=False):
            distances: Tensor = self.network(images.float(), originals.float())
        return distances.mean()
