from __future__ import annotations

from typing import Any

import pytest
import torch

from lit_eve_callbacks.reconstructions import Reconstructions
from tests.tokenizer_training import Records, fit, gumbel_task, image, vector_task

VALIDATE: dict[str, Any] = {
    "limit_val_batches": 2,
    "check_val_every_n_epoch": None,
    "val_check_interval": 3,
}


def test_every_validation_shows_a_grid_with_its_step() -> None:
    records = Records()
    fit(gumbel_task(), [Reconstructions(2)], records, **VALIDATE)
    assert [(key, step) for key, step, *_ in records.pictures] == [
        ("val/reconstructions", 3),
        ("val/reconstructions", 6),
    ]
    _, _, pictures, captions, columns = records.pictures[0]
    assert captions == ["original", "original", "hard", "hard", "relaxed", "relaxed"]
    assert columns == 2
    assert all(picture.shape == (16, 12, 3) for picture in pictures)
    assert torch.equal(torch.from_numpy(pictures[1]).permute(2, 0, 1), image(1))


def test_only_so_many_images_are_shown() -> None:
    records = Records()
    fit(vector_task(), [Reconstructions(1)], records, **VALIDATE)
    assert records.pictures[0][3] == ["original", "hard"]


def test_showing_draws_no_random_numbers_of_the_run() -> None:
    def weights(shown: bool) -> dict[str, torch.Tensor]:
        module = gumbel_task()
        torch.manual_seed(1)
        fit(module, [Reconstructions()] if shown else [], Records(), **VALIDATE)
        return module.state_dict()

    plain, shown = weights(False), weights(True)
    assert all(torch.equal(plain[name], shown[name]) for name in plain)


def test_without_a_logger_for_pictures_nothing_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    module = vector_task()
    monkeypatch.setattr(module, "pictures", lambda pixels: pytest.fail("drawn for nobody"))
    fit(module, [Reconstructions()], **VALIDATE)


def test_no_pictures_is_an_error() -> None:
    with pytest.raises(ValueError, match="0 pictures are none"):
        Reconstructions(0)
