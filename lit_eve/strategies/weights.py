"""Weights into and out of a model that is in pieces."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    set_model_state_dict,
)
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor

from lit_eve.checkpoints.atomic import world_size

_RANK_VARIABLES = ("RANK", "SLURM_PROCID", "LOCAL_RANK")


def builds_on_meta(strategy: str) -> bool:
    """Whether this process may build the model without weights, under `torch.device("meta")`.

    Under `fsdp` and `hsdp` only rank zero needs the weights: it hands every other rank its shard.
    Known from the launcher's variables, before any process group exists.
    """
    if strategy not in ("fsdp", "hsdp"):
        return False
    ranks = (os.environ[name] for name in _RANK_VARIABLES if name in os.environ)
    node = os.environ.get("NODE_RANK", "0")
    return int(next(ranks, "0")) > 0 or int(node) > 0


def full_state(module: nn.Module) -> dict[str, Tensor]:
    """Rank zero's weights, and nothing on the other ranks, before the module is sharded."""
    rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
    if rank > 0:
        return {}
    return {name: tensor.detach() for name, tensor in module.state_dict().items()}


def hand_out(module: nn.Module, state: Mapping[str, Tensor], device: torch.device) -> None:
    """Give every rank its shard of rank zero's weights, and rank zero's buffers whole.

    Initialising shards in place would draw the same numbers on every rank, and Transformers models
    hold buffers that no state dict has (rotary frequencies): on a rank that was built on the meta
    device both are raw memory until they come from here.
    """
    if any(tensor.is_meta for tensor in (*module.parameters(), *module.buffers())):
        module.to_empty(device=device)
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
    set_model_state_dict(module, dict(state), options=options)
    if world_size() > 1:
        for buffer in module.buffers():
            torch.distributed.broadcast(buffer, src=0)


@torch.no_grad()
def hollow_out(module: nn.Module, device: torch.device) -> None:
    """Give a module on the meta device memory, and zeros in it: as large as weights, nothing more.

    Zeros, because raw memory may hold an index that is out of range.
    """
    module.to_empty(device=device)
    for tensor in (*module.parameters(), *module.buffers()):
        tensor.zero_()


def gather_weights(module: nn.Module) -> dict[str, Tensor]:
    """All weights on the host of rank zero, nothing elsewhere; every rank must come here."""
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    if not any(isinstance(inner, FSDPModule) for inner in module.modules()):
        rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
        state = {} if rank else module.state_dict()
        return {name: tensor.detach().cpu() for name, tensor in state.items()}
    return {
        name: tensor
        for name, tensor in get_model_state_dict(module, options=options).items()
        if isinstance(tensor, Tensor)
    }


def shared_out(module: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What `module.load_state_dict` takes: whole weights, or this rank's shards of them.

    Args:
        module: whole or sharded.
        weights: whole, by name; the same on every rank.
    """
    own = module.state_dict()
    shared = dict(weights)
    for name, weight in weights.items():
        here = own.get(name)
        if isinstance(here, DTensor):
            shared[name] = distribute_tensor(
                weight.to(here.device), here.device_mesh, here.placements, src_data_rank=None
            )
    return shared


@contextmanager
def usable_weights(module: nn.Module) -> Iterator[None]:
    """Let code call parts of a sharded task outside its steps, to generate say.

    Blocks come and go by themselves; what lies outside them is whole inside this context. All ranks
    must run the same blocks the same number of times. Does nothing to a module that is whole.
    """
    if not isinstance(module, FSDPModule):
        yield
        return
    module.unshard()
    try:
        yield
    finally:
        module.reshard()
