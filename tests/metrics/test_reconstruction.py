from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lit_eve.metrics.reconstruction import (
    ReconstructionFid,
    check_ssim_size,
    eight_bits,
    reconstruction_quality,
)


# PSNR = -10 log10(mse): an error of 0.1 everywhere is 20 dB, of 0.01 40 dB; their mean is 30.
def test_psnr_is_the_mean_over_images_of_their_own() -> None:
    quality = reconstruction_quality()
    originals = torch.full((2, 3, 16, 16), 0.5)
    reconstructions = originals.clone()
    reconstructions[0] += 0.1
    reconstructions[1] -= 0.01
    quality.update(reconstructions, originals)
    assert quality.compute()["psnr"].item() == pytest.approx(30, abs=1e-3)


def test_images_of_other_sizes_weigh_the_same() -> None:
    quality = reconstruction_quality()
    for size, error in ((16, 0.1), (64, 0.01)):
        originals = torch.full((1, 3, size, size), 0.5)
        quality.update(originals + error, originals)
    assert quality.compute()["psnr"].item() == pytest.approx(30, abs=1e-3)


def test_ssim_is_1_for_equal_images_and_less_for_noise() -> None:
    torch.manual_seed(0)
    originals = torch.rand(2, 3, 32, 32)
    quality = reconstruction_quality()
    quality.update(originals, originals)
    assert quality.compute()["ssim"].item() == pytest.approx(1)
    quality.reset()
    quality.update(torch.rand(2, 3, 32, 32), originals)
    assert quality.compute()["ssim"].item() < 0.2


def test_eight_bits_round_and_do_not_cut_off() -> None:
    levels = torch.tensor([0.0, 0.4 / 255, 0.6 / 255, 1.0])
    assert (eight_bits(levels) * 255).round().tolist() == [0.0, 0.0, 1.0, 255.0]


def test_rfid_without_its_network_is_an_error_and_never_a_number(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"rFID needs torch-fidelity.*not reported as"):
        ReconstructionFid(tmp_path / "missing.pth")


def test_images_smaller_than_the_window_of_ssim_are_refused() -> None:
    check_ssim_size(torch.zeros(1, 3, 11, 11))
    with pytest.raises(ValueError, match=r"\(8, 32\) pixels are smaller.*at least 11"):
        check_ssim_size(torch.zeros(1, 3, 8, 32))
