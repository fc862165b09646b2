"""How close reconstructions are to their originals, each number with its conventions stated.

All take images in [0, 1]; none crops. Reconstructions are rounded to 8 bits first, as they would be
when saved: code that cuts off instead of rounding, or that does neither, gets other figures.

Shapes: B images, H/W pixels.
"""

from __future__ import annotations

from pathlib import Path
from urllib.error import URLError

from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.image import PeakSignalNoiseRatio, StructuralSimilarityIndexMeasure
from torchmetrics.image.fid import FrechetInceptionDistance

SSIM_WINDOW = 11
"""Side of the window that SSIM compares; smaller images have none."""


def reconstruction_quality() -> MetricCollection:
    """PSNR and SSIM, data range 1.

    `psnr` is the mean over images of each image's own PSNR, in dB; `ssim` the mean over images with
    the Gaussian window of 11 pixels (sigma 1.5).
    """
    return MetricCollection(
        {
            "psnr": PeakSignalNoiseRatio(data_range=1.0, dim=(1, 2, 3)),
            "ssim": StructuralSimilarityIndexMeasure(data_range=1.0),
        }
    )


def eight_bits(images: Tensor) -> Tensor:
    """Images in [0, 1] rounded to the nearest of 256 steps."""
    return (images * 255).round() / 255


class ReconstructionFid(Metric):
    """rFID: the Fréchet distance of Inception features, reconstructions against originals.

    Images are resized to 299 x 299 by the feature network, bilinear with antialiasing. Compare only
    figures of the same set: against the originals themselves, which is what this is.

    Args:
        weights: file of the Inception network's weights; None for torch-fidelity's own place.

    Raises:
        ValueError: if the network or its weights are not at hand. There is no value without them.
    """

    full_state_update = False

    def __init__(self, weights: Path | None = None) -> None:
        super().__init__()
        place = None if weights is None else str(weights)
        try:
            self.distance = FrechetInceptionDistance(
                normalize=True, feature_extractor_weights_path=place
            )
        except (ModuleNotFoundError, URLError, OSError) as error:
            raise ValueError(
                f"rFID needs torch-fidelity and its Inception weights ({error}). Install "
                "torch-fidelity, give the weights' file, or leave rFID out: it is not reported as "
                "0, nor by another network, which would be another number."
            ) from error

    def update(self, reconstructions: Tensor, originals: Tensor) -> None:
        """Add images, (B, 3, H, W) in [0, 1]."""
        self.distance.update(originals, real=True)
        self.distance.update(eight_bits(reconstructions), real=False)

    def compute(self) -> Tensor:
        """The distance; at least 2048 images make it mean something."""
        value: Tensor = self.distance.compute()
        return value

    def reset(self) -> None:
        """Start counting afresh."""
        super().reset()
        self.distance.reset()


def check_ssim_size(images: Tensor) -> None:
    """Stop on images that SSIM's window does not fit into.

    Raises:
        ValueError: naming the size.
    """
    if min(images.shape[2:]) < SSIM_WINDOW:
        raise ValueError(
            f"images of {tuple(images.shape[2:])} pixels are smaller than SSIM's window of "
            f"{SSIM_WINDOW}: validate on images of at least {SSIM_WINDOW} pixels a side."
        )
