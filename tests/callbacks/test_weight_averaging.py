from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from torch import Tensor

from lit_eve.checkpoints import Checkpoints
from lit_eve_callbacks.weight_averaging import WeightAveraging, averaged_weights, decay_at
from tests.tokenizer_training import fit, gumbel_task, saving, vector_task

VALIDATE: dict[str, Any] = {
    "limit_val_batches": 2,
    "check_val_every_n_epoch": None,
    "val_check_interval": 3,
}


class Keeps(Callback):
    """The weights after every step, and those that validation saw."""

    def __init__(self) -> None:
        self.trained: list[dict[str, Tensor]] = []
        self.validated: list[dict[str, Tensor]] = []

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        self.trained.append(copied(pl_module))

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        if trainer.global_step == len(self.trained):
            self.trained.append(copied(pl_module))

    def on_validation_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        self.validated.append(copied(pl_module))


def copied(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: weight.clone() for name, weight in module.state_dict().items()}


# Worked by hand: (1 + t) / (10 + t) until it exceeds the decay.
def test_the_average_is_short_at_first() -> None:
    assert decay_at(1, 0.999) == pytest.approx(2 / 11)
    assert decay_at(90, 0.999) == pytest.approx(0.91)
    assert decay_at(8_990, 0.999) == 0.999
    assert decay_at(10**6, 0.999) == 0.999


def test_averages_follow_every_optimizer_step() -> None:
    keeps, averaging = Keeps(), WeightAveraging(0.3)
    fit(vector_task(), [averaging, keeps], max_steps=3, accumulate_grad_batches=2)
    name = "model.encoder.layers.0.weight"
    expected = keeps.trained[0][name].double()
    for step in (1, 2, 3):
        d = min(0.3, (1 + step) / (10 + step))
        expected = d * expected + (1 - d) * keeps.trained[step][name].double()
    torch.testing.assert_close(averaging.averages[name].double(), expected, rtol=1e-6, atol=1e-7)
    # A codebook's own averages too, so that codes and encoder are of one age.
    assert "model.quantizer.codebook.vectors" in averaging.averages


def test_validation_sees_the_averages_and_training_does_not() -> None:
    keeps, averaging = Keeps(), WeightAveraging(0.9)
    module = vector_task()
    fit(module, [averaging, keeps], max_steps=3, **VALIDATE)
    name = "model.decoder.layers.0.weight"
    assert torch.equal(keeps.validated[0][name], averaging.averages[name])
    assert torch.equal(module.state_dict()[name], keeps.trained[3][name])
    assert not torch.equal(averaging.averages[name], keeps.trained[3][name])


def test_scalars_and_flags_are_taken_as_they_are() -> None:
    module, averaging = gumbel_task(), WeightAveraging(0.9)
    module.model.quantizer.get_buffer("temperature").fill_(0.25)
    fit(module, [averaging])
    assert averaging.averages["model.quantizer.temperature"].item() == 0.25


def test_averaging_does_not_change_the_training() -> None:
    plain, averaged = vector_task(), vector_task()
    fit(plain, **VALIDATE)
    fit(averaged, [WeightAveraging()], **VALIDATE)
    assert all(torch.equal(w, averaged.state_dict()[n]) for n, w in plain.state_dict().items())


def test_a_resumed_average_ends_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    whole, second = WeightAveraging(0.9), WeightAveraging(0.9)
    fit(vector_task(), [whole])
    fit(vector_task(), [WeightAveraging(0.9), saving(tmp_path)], max_steps=3)
    fit(vector_task(), [second, saving(tmp_path)], resume=tmp_path / "step=3.ckpt")
    assert whole.averages.keys() == second.averages.keys()
    for name, average in whole.averages.items():
        assert torch.equal(average, second.averages[name]), name


def test_a_checkpoint_holds_weights_and_averages_even_after_a_failed_validation(
    tmp_path: Path,
) -> None:
    class Fails(Callback):
        def on_validation_batch_end(self, *_: Any) -> None:
            raise RuntimeError("in the middle")

        def on_exception(self, trainer: Any, *_: Any) -> None:
            trainer.save_checkpoint(tmp_path / "last.ckpt")

    module, keeps, averaging = vector_task(), Keeps(), WeightAveraging(0.9)
    with pytest.raises(RuntimeError, match="in the middle"):
        fit(module, [averaging, keeps, Fails()], **VALIDATE)
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    name = "encoder.layers.0.weight"
    assert torch.equal(checkpoint["state_dict"][f"model.{name}"], keeps.trained[3][f"model.{name}"])
    averages = averaged_weights(checkpoint)
    assert torch.equal(averages[name], averaging.averages[f"model.{name}"])
    assert averages.keys() == module.model.state_dict().keys()


def test_a_checkpoint_saved_as_validation_starts_holds_the_weights(tmp_path: Path) -> None:
    keeps = Keeps()
    callbacks = [WeightAveraging(0.9), keeps, Checkpoints(tmp_path, every=100)]
    fit(vector_task(), callbacks, max_steps=4, **VALIDATE)
    checkpoint = torch.load(tmp_path / "step-00000003.ckpt", weights_only=True)
    name = "model.encoder.layers.0.weight"
    assert torch.equal(checkpoint["state_dict"][name], keeps.trained[3][name])


def test_impossible_decays_and_missing_averages_are_refused() -> None:
    with pytest.raises(ValueError, match=r"decay of 1 averages nothing"):
        WeightAveraging(1)
    with pytest.raises(ValueError, match="holds no averaged weights"):
        averaged_weights({"state_dict": {}})
