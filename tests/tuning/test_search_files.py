"""The `search:` of a file is checked like everything else, before anything is tried."""

from __future__ import annotations

from pathlib import Path

import pytest

from lit_eve.schema import ExperimentErrors, load
from lit_eve.schema.loading import variations

ROOT = Path(__file__).parents[2]
BASE = ROOT / "experiments" / "tokenizer" / "dalle_dvae_laptop.yaml"
SEARCH = ROOT / "experiments" / "search" / "gumbel_temperature.yaml"


def problems(*overrides: str) -> str:
    with pytest.raises(ExperimentErrors) as caught:
        load(BASE, [f"search.{word}" for word in ("trials=4", "minimize=val/loss", *overrides)])
    return str(caught.value)


RATE = 'search.space={"stages.train.train.quantizer": {log: [1e-4, 1e-2]}}'.removeprefix("search.")


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["space={}"], "there is nothing in it"),
        (['space={"seed": {range: [4, 4]}}'], "nothing lies between 4 and 4"),
        (['space={"model.quantizer.type": {log: [1, 2]}}'], "there is no type 1"),
        (['space={"model.quantizer.coeds": [64, 128]}'], "Did you mean 'codes'"),
        (['space={"seed": [1, 2], "batch": {range: [1, 2], when: {sed: 1}}}'], "'seed'"),
        (['space={"seed": {choices: [1, 2], when: {seed: 1}}}'], "no other key of the space"),
        (
            ['space={"seed": [1, 2], "model.quantizer.codes": {choices: [64], when: {seed: 3}}}'],
            "seed is never 3",
        ),
        ([RATE, "first=[{seed: 1}]"], "this is no key of the space"),
        ([RATE, "maximize=[val/psnr]", "prune=median"], "no common order"),
        ([RATE, "sampler=grid"], "a grid tries every combination once"),
        ([RATE, "storage=journal:search.log"], "no place that survives"),
        ([RATE, "require={val/psnr: {above: 3, below: 2}}"], "nothing is above 3 and below 2"),
    ],
)
def test_a_mistake_in_a_search_is_told_with_its_way_out(overrides: list[str], told: str) -> None:
    assert told in problems(*overrides)


def test_a_setting_is_put_into_the_experiment() -> None:
    shape = variations(SEARCH)
    rate = "stages.train.train.quantizer"
    experiment = shape.experiment({rate: 0.01, "model.quantizer.temperature.over": "30%"})
    assert experiment.search is None
    assert experiment.trained["train"].train["quantizer"].lr == 0.01
    assert "over: 30%" in experiment.to_yaml()


def test_a_number_is_whole_where_its_place_takes_no_fraction() -> None:
    space = '{"model.quantizer.codes": {log: [64, 256]}, "model.quantizer.kl.to": {range: [1, 9]}}'
    shape = variations(BASE, ["search.trials=2", "search.minimize=a", f"search.space={space}"])
    assert shape.whole("model.quantizer.codes")
    assert not shape.whole("model.quantizer.kl.to")
