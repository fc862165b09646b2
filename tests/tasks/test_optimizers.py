from __future__ import annotations

import pytest
import torch
from torch import nn

from lit_eve.tasks.optimizers import FROZEN, AdamWOptions, build_adamw, part_of


def model() -> nn.ModuleDict:
    return nn.ModuleDict(
        {
            "eye": nn.Linear(2, 2),
            "mind": nn.ModuleDict({"head": nn.Linear(2, 2), "body": nn.Linear(2, 2)}),
        }
    )


def test_the_most_specific_part_holds_a_parameter() -> None:
    parts = {"mind": 1, "mind.head": 2}
    assert part_of("mind.head.weight", parts) == "mind.head"
    assert part_of("mind.body.weight", parts) == "mind"
    assert part_of("eye.weight", parts) == FROZEN
    assert part_of("minds.weight", parts) == FROZEN


def test_every_parameter_is_in_exactly_one_group() -> None:
    net = model()
    optimizer, _ = build_adamw(net, {"mind.head": lambda step: 1.0}, AdamWOptions())
    grouped = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in net.parameters())


def test_only_matrices_decay() -> None:
    options = AdamWOptions(weight_decay=0.1)
    optimizer, _ = build_adamw(model(), {"eye": lambda step: 1.0}, options)
    for group in optimizer.param_groups:
        assert all((p.ndim > 1) == (group["weight_decay"] > 0) for p in group["params"])


def test_a_part_follows_its_own_rate_and_what_is_not_named_stays() -> None:
    net = model()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    rates = {"eye": lambda step: 0.5 / (step + 1), "mind.head": lambda step: 0.25}
    optimizer, schedule = build_adamw(net, rates, AdamWOptions())
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(not name.startswith("mind.body"))
    for step in range(2):
        named = {str(group["name"]): group["lr"] for group in optimizer.param_groups}
        assert named["eye"] == 0.5 / (step + 1)
        assert named["mind.head"] == 0.25
        assert named[FROZEN] == 0.0
        loss = net["eye"](torch.ones(1, 2)).sum() + net["mind"]["head"](torch.ones(1, 2)).sum()  # type: ignore[index]
        loss.backward()
        optimizer.step()
        schedule.step()
    after = net.state_dict()
    assert torch.equal(before["mind.body.weight"], after["mind.body.weight"])
    assert not torch.equal(before["eye.weight"], after["eye.weight"])


def test_a_part_that_is_not_in_the_model_is_an_error_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"'mind\.hed' is no part of the model.*mind.head"):
        build_adamw(model(), {"mind.hed": lambda step: 1.0}, AdamWOptions())
