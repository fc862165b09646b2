"""A patch discriminator: is each region of the picture real?

Shapes: B images, H/W pixels, h/w patches judged.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.func import functional_call


class PatchDiscriminator(nn.Module):
    """PatchGAN: a few strided convolutions, one score for every region.

    Group norm stands where PatchGAN has batch norm, so that neither the other images of a batch nor
    the number of processes changes a score.

    Args:
        width: channels after the first convolution; doubled by each further one, up to 8 times.
        layers: convolutions of stride 2.

    Source:
        Isola et al. 2017, arXiv:1611.07004, section 3.2; VQGAN uses width 64 and 3 layers.
    """

    def __init__(self, width: int = 64, layers: int = 3) -> None:
        super().__init__()
        widths = [min(1 << n, 8) * width for n in range(layers + 1)]
        body: list[nn.Module] = [nn.Conv2d(3, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        for number in range(1, layers + 1):
            into, out = widths[number - 1], widths[number]
            stride = 2 if number < layers else 1
            body += [nn.Conv2d(into, out, 4, stride=stride, padding=1, bias=False)]
            body += [nn.GroupNorm(math.gcd(32, out), out), nn.LeakyReLU(0.2)]
        body.append(nn.Conv2d(widths[-1], 1, 4, padding=1))
        self.layers = nn.Sequential(*body)
        self.smallest = (1 << layers) * 3
        """Side of the smallest image it can judge."""
        self.apply(_start)

    def forward(self, images: Tensor) -> Tensor:
        """Scores (B, 1, h, w) of images (B, 3, H, W) in [-1, 1]: above 0 looks real.

        Raises:
            ValueError: if the images are too small.
        """
        if min(images.shape[2:]) < self.smallest:
            raise ValueError(
                f"images of {tuple(images.shape[2:])} pixels are too small for a discriminator of "
                f"this depth, which needs {self.smallest}: use larger images or fewer layers."
            )
        scores: Tensor = self.layers(images)
        return scores

    def judge(self, images: Tensor) -> Tensor:
        """`forward`, whose gradient goes to the images only: how a generator asks."""
        fixed = {name: weight.detach() for name, weight in self.named_parameters()}
        scores: Tensor = functional_call(self, fixed, (images,))
        return scores


def _start(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def gradient_norm(loss: Tensor, weight: Tensor) -> Tensor:
    """Length of the gradient of a loss at one weight; the graph stays for the backward pass."""
    (gradient,) = torch.autograd.grad(loss, weight, retain_graph=True)
    length: Tensor = torch.linalg.vector_norm(gradient.float())
    return length
