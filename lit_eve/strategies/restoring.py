"""A checkpoint that is one file, into a model and an optimizer that are in pieces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.optim import Optimizer

from lit_eve.checkpoints.shards import names_with_state

State = dict[str, Any]
"""Of an optimizer."""


class Stored:
    """A checkpoint of any form, as far as it has to be read before `requires_grad` is set.

    Lightning gives the entries of an optimizer's state to parameters in the model's order, but they
    are numbered in that of the optimizer's groups: every group that is no run of neighbours would
    get the moments of others, in silence where shapes agree.
    """

    def __init__(self, path: Path, module: nn.Module, optimizers: Sequence[Optimizer]) -> None:
        self.path, self.module, self.optimizers = path, module, optimizers
        self.checkpoint: dict[str, Any] | None = None
        self.states: list[State] = []
        if path.is_file():
            self.checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            pairs = zip(optimizers, self.checkpoint.get("optimizer_states", ()), strict=False)
            self.states = [by_name(state, optimizer, module) for optimizer, state in pairs]

    def names_with_state(self) -> set[str]:
        """Parameters that have optimizer state in it."""
        if self.checkpoint is None:
            return names_with_state(self.path)
        return {name for state in self.states for name in state["state"]}

    def restore(self) -> dict[str, Any] | None:
        """Fill model and optimizers; gives what else there is, None for a folder of shards."""
        if self.checkpoint is None:
            return None
        options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
        first = not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0
        weights = self.checkpoint.pop("state_dict")
        set_model_state_dict(self.module, weights if first else {}, options=options)
        for optimizer, state in zip(self.optimizers, self.states, strict=True):
            set_optimizer_state_dict(
                self.module, optimizer, optim_state_dict=state, options=options
            )
        return self.checkpoint


def by_name(state: Mapping[str, Any], optimizer: Optimizer, module: nn.Module) -> State:
    """Optimizer state by the names of `module`'s parameters.

    Args:
        state: as any optimizer gives it, keyed by number or name; the groups' order counts.
        optimizer: the same one, here.
        module: whose parameters it steps.
    """
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    here = [names[id(p)] for group in optimizer.param_groups for p in group["params"]]
    stored = [key for group in state["param_groups"] for key in group["params"]]
    name_of = dict(zip(stored, here, strict=True))
    return {
        "state": {name_of[key]: entry for key, entry in state["state"].items()},
        "param_groups": [
            {**group, "params": [name_of[key] for key in group["params"]]}
            for group in state["param_groups"]
        ],
    }
