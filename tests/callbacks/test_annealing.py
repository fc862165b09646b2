from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import pytest
import torch

from lit_eve.models.tokenizers.gumbel import GumbelQuantizer
from lit_eve_callbacks.annealing import Annealing
from lit_eve_callbacks.random_state import RandomState
from lit_eve_callbacks.schedules import cosine, exponential, linear, quarter_cosine, schedule
from tests.tokenizer_training import Records, fit, gumbel_task, saving, vector_task

PAPER = schedule("cosine", start=1.0, end=1 / 16, steps=150_000)


class Watched(Annealing):
    """Remembers what the model was trained with."""

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]
        self.seen: list[tuple[int, float]] = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):  # type: ignore[no-untyped-def]
        buffer = pl_module.model.quantizer.get_buffer(self.name)
        self.seen.append((trainer.global_step - 1, float(buffer)))


# Of the published schedules, worked by hand: 1/16 + 15/16 (1 + cos(pi f)) / 2.
@pytest.mark.parametrize(
    ("step", "value"),
    [(0, 1.0), (37_500, 0.862706), (75_000, 0.53125), (150_000, 0.0625), (10**6, 0.0625)],
)
def test_the_temperature_of_the_paper(step: int, value: float) -> None:
    assert PAPER(step) == pytest.approx(value, abs=1e-6)


def test_the_curves_that_can_be_chosen_halfway() -> None:
    half = {"start": 1.0, "end": 1 / 16, "steps": 2.0}
    assert cosine(1, **half) == pytest.approx(0.53125)
    assert quarter_cosine(1, **half) == pytest.approx(1 - 15 / 16 * (1 - math.cos(math.pi / 4)))
    assert linear(1, **half) == pytest.approx(0.53125)
    assert exponential(1, **half) == pytest.approx(0.25)


def test_every_step_trains_with_the_value_of_its_step() -> None:
    annealing = Watched("temperature", partial(linear, start=1.0, end=0.4, steps=6))
    fit(gumbel_task(), [annealing])
    assert [step for step, _ in annealing.seen] == [0, 1, 2, 3, 4, 5]
    values = [value for _, value in annealing.seen]
    assert values == pytest.approx([1.0, 0.9, 0.8, 0.7, 0.6, 0.5])


def test_micro_batches_of_one_step_have_one_value() -> None:
    annealing = Watched("temperature", partial(linear, start=1.0, end=0.4, steps=6))
    fit(gumbel_task(), [annealing], max_steps=3, accumulate_grad_batches=2)
    values = [value for _, value in annealing.seen]
    assert values == pytest.approx([1.0, 1.0, 0.9, 0.9, 0.8, 0.8])


def test_a_resumed_run_goes_on_with_the_value_of_its_step(tmp_path: Path) -> None:
    value = partial(linear, start=1.0, end=0.4, steps=6)
    fit(gumbel_task(), [Annealing("temperature", value), saving(tmp_path)], max_steps=3)
    annealing = Watched("temperature", value)
    fit(gumbel_task(), [annealing, saving(tmp_path)], resume=tmp_path / "step=3.ckpt")
    assert [step for step, _ in annealing.seen] == [3, 4, 5]
    assert [value for _, value in annealing.seen] == pytest.approx([0.7, 0.6, 0.5])


def test_two_numbers_are_annealed_and_logged_side_by_side() -> None:
    records = Records()
    value = partial(linear, start=0.0, end=6.0, steps=6)
    both = [Annealing("temperature", lambda step: 0.5, 2), Annealing("kl_weight", value, 3)]
    module = gumbel_task()
    fit(module, both, records)
    assert records.of("optim/temperature") == {0: 0.5, 2: 0.5, 4: 0.5}
    assert records.of("optim/kl_weight") == {0: 0.0, 3: 3.0}
    quantizer = module.model.quantizer
    assert isinstance(quantizer, GumbelQuantizer)
    assert quantizer.kl_weight.item() == 5.0
    assert both[0].state_key != both[1].state_key


def test_nothing_to_anneal_is_an_error_that_names_what_there_is() -> None:
    with pytest.raises(ValueError, match=r"no scalar buffer called 'temperatur'.*temperature"):
        fit(gumbel_task(), [Annealing("temperatur", lambda step: 1.0)])
    with pytest.raises(ValueError, match=r"'temperature', so there is nothing.*none at all"):
        fit(vector_task(), [Annealing("temperature", lambda step: 1.0)])


def test_training_with_an_annealed_temperature_resumes_to_the_bit(tmp_path: Path) -> None:
    def callbacks() -> list[Annealing | RandomState]:
        value = partial(cosine, start=1.0, end=1 / 16, steps=6)
        weight = partial(cosine, start=0.0, end=6.6, steps=6)
        return [Annealing("temperature", value), Annealing("kl_weight", weight), RandomState()]

    whole, first, second = gumbel_task(), gumbel_task(), gumbel_task()
    torch.manual_seed(5)
    fit(whole, callbacks())
    torch.manual_seed(5)
    fit(first, [*callbacks(), saving(tmp_path)], max_steps=3)
    torch.manual_seed(99)
    fit(second, [*callbacks(), saving(tmp_path)], resume=tmp_path / "step=3.ckpt")
    for name, weight in whole.state_dict().items():
        assert torch.equal(weight, second.state_dict()[name]), name
