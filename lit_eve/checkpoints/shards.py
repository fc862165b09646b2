"""Folders of shards (torch.distributed.checkpoint) read by one process, without a process group.

Their metadata is pickled by torch: read only folders whose writer you trust, and export one
safetensors file to give weights away.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load

REST_FILE = "meta.pt"
"""Everything that is no weight and no optimizer state, as Lightning calls it."""

_STATE_DICT = "state_dict."
_OPTIMIZER = re.compile(r"optimizer_(\d+)\.(.+)")


def read_shard_weights(folder: Path) -> dict[str, Tensor]:
    """The weights alone; optimizer state is not read."""
    entries = _read(folder, lambda name: name.startswith(_STATE_DICT))
    return {
        name.removeprefix(_STATE_DICT): value
        for name, value in entries.items()
        if isinstance(value, Tensor)
    }


def read_shards(folder: Path) -> dict[str, Any]:
    """The folder as the one-file checkpoint that any strategy can load."""
    rest: dict[str, Any] = torch.load(folder / REST_FILE, map_location="cpu", weights_only=True)
    entries = _read(folder, lambda name: True)
    optimizers: dict[int, dict[str, Any]] = {}
    for name, value in entries.items():
        if match := _OPTIMIZER.fullmatch(name):
            optimizers.setdefault(int(match[1]), {})[match[2]] = value
    weights = {
        name.removeprefix(_STATE_DICT): value
        for name, value in entries.items()
        if name.startswith(_STATE_DICT)
    }
    states = [numbered(optimizers[index]) for index in sorted(optimizers)]
    return {**rest, "state_dict": weights, "optimizer_states": states}


def numbered(entries: Mapping[str, Any]) -> dict[str, Any]:
    """Optimizer state by parameter name, as shards have it, to state by number, as torch has it.

    Args:
        entries: `state.<parameter>.<quantity>` and `param_groups.<number>.<option>`.

    Returns:
        What `Optimizer.load_state_dict` takes: parameters are numbered through all groups.
    """
    groups: dict[int, dict[str, Any]] = {}
    for name, value in entries.items():
        if name.startswith("param_groups."):
            _, group, option = name.split(".", 2)
            groups.setdefault(int(group), {})[option] = value
    ids: dict[str, int] = {}
    ordered = []
    for number in sorted(groups):
        names = groups[number]["params"]
        ids.update({name: len(ids) + offset for offset, name in enumerate(names)})
        ordered.append({**groups[number], "params": [ids[name] for name in names]})
    state: dict[int, dict[str, Any]] = {}
    for name, value in entries.items():
        if name.startswith("state."):
            parameter, quantity = name.removeprefix("state.").rsplit(".", 1)
            state.setdefault(ids[parameter], {})[quantity] = value
    return {"state": state, "param_groups": ordered}


def names_with_state(folder: Path) -> set[str]:
    """Parameters that have optimizer state in the folder; only the index is read."""
    pattern = re.compile(r"optimizer_\d+\.state\.(.+)\.[^.]+")
    names = FileSystemReader(folder).read_metadata().state_dict_metadata
    return {match[1] for name in names if (match := pattern.fullmatch(name))}


def _read(folder: Path, wanted: Callable[[str], bool]) -> dict[str, Any]:
    target: dict[str, Any] = {}
    for name, entry in FileSystemReader(folder).read_metadata().state_dict_metadata.items():
        if not wanted(name):
            continue
        if isinstance(entry, TensorStorageMetadata):
            target[name] = torch.empty(entry.size, dtype=entry.properties.dtype)
        else:
            target[name] = None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")  # that is the point
        load(target, checkpoint_id=folder, no_dist=True)
    return target
