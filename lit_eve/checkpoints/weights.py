"""Weights alone: read out of any checkpoint, written as one safetensors file.

A model whose head is tied to its embedding has one tensor under two names. safetensors stores each
tensor once; the other names are kept in the file's metadata and come back on reading.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lit_eve.checkpoints import files
from lit_eve.checkpoints.atomic import explain_failed_write, load_verified
from lit_eve.checkpoints.files import CheckpointError
from lit_eve.checkpoints.shards import read_shard_weights

_TIED = "tied"


def read_weights(path: Path | str, prefix: str = "") -> dict[str, Tensor]:
    """The weights of a checkpoint, a folder of shards or a safetensors file, on the host.

    Args:
        path: what to read.
        prefix: only names that start so, without it (`model.` takes the model out of its task).

    Returns:
        Tensors by name. Optimizer and everything else is not loaded where the format allows it.

    Raises:
        CheckpointError: if the file is not whole, or nothing in it starts with `prefix`.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        weights = _read_safetensors(path)
    elif path.is_dir():
        files.verify(path)
        weights = read_shard_weights(path)
    else:
        weights = load_verified(path)["state_dict"]
    chosen = {
        name.removeprefix(prefix): tensor
        for name, tensor in weights.items()
        if name.startswith(prefix)
    }
    if not chosen:
        raise CheckpointError(
            f"{path} holds no weights whose name starts with {prefix!r}. Its names start as "
            f"{', '.join(sorted(weights)[:3]) or 'nothing: it is empty'}."
        )
    return chosen


def write_weights(path: Path | str, weights: Mapping[str, Tensor]) -> Path:
    """Write one safetensors file so that a reader sees the old one or the new one.

    Raises:
        CheckpointError: if it could not be written; the previous file is untouched.
    """
    path = Path(path)
    first: dict[tuple[object, ...], str] = {}
    stored: dict[str, Tensor] = {}
    tied: dict[str, str] = {}
    for name, tensor in weights.items():
        key = (tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        if tensor.numel() and key in first:
            tied[name] = first[key]
        else:
            first[key] = name
            stored[name] = tensor.detach().to("cpu").contiguous()
    temporary = files.temporary_beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(_apart(stored), temporary, metadata={"format": "pt", _TIED: json.dumps(tied)})
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        os.replace(temporary, path)
        files.sync_directory(path.parent)
    except (OSError, SafetensorError) as error:
        cause = error if isinstance(error, OSError) else OSError(str(error))
        raise CheckpointError(explain_failed_write(path, cause)) from error
    finally:
        files.discard(temporary)
    return path


def consolidate(checkpoint: Path | str, file: Path | str, prefix: str = "") -> Path:
    """Turn a checkpoint, sharded or not, into one safetensors file on a machine without a GPU.

    Reads the weights only, in one process, whatever number of processes wrote them.

    Raises:
        CheckpointError: if the checkpoint is not whole or the file cannot be written.
    """
    return write_weights(file, read_weights(checkpoint, prefix))


def _apart(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Views into one storage become tensors of their own, as safetensors demands."""
    seen: set[int] = set()
    result = {}
    for name, tensor in tensors.items():
        storage = tensor.untyped_storage()
        partial = storage.nbytes() != tensor.nbytes
        shared = tensor.numel() > 0 and storage.data_ptr() in seen
        seen.add(storage.data_ptr())
        result[name] = tensor.clone() if partial or shared else tensor
    return result


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as stream:
            weights = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
            tied = json.loads((stream.metadata() or {}).get(_TIED, "{}"))
    except (OSError, SafetensorError, ValueError) as error:
        raise CheckpointError(
            f"the weights {path} cannot be read ({error}): the model would be a random one. Copy "
            "the file again, or make it anew from a checkpoint: lit-eve consolidate."
        ) from error
    for name, source in tied.items():
        weights[name] = weights[source]
    return weights
