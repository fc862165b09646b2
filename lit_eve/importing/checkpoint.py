"""Somebody else's checkpoint: its tensors by name, read without running what is in it.

A checkpoint is a folder as Transformers writes it (one file or shards, safetensors or torch files)
or one such file. Tensors stay on disk until they are used.
"""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

_TORCH = ("pytorch_model*.bin", "*.bin", "*.pt", "*.pth")


@dataclass
class Report:
    """What became of every tensor of a checkpoint."""

    used: dict[str, str] = field(default_factory=dict)
    """Its name there -> its name here."""
    unused: dict[str, str] = field(default_factory=dict)
    """Its name there -> why it is not needed."""

    def lines(self) -> Iterable[str]:
        """What a user should know: how many are used, and every one that is not."""
        yield f"used    {len(self.used)} tensors"
        for name, reason in self.unused.items():
            yield f"unused  {name}: {reason}"


def read_config(source: Path) -> Mapping[str, Any]:
    """The settings of a checkpoint, `config.json`.

    Raises:
        ValueError: if there are none.
    """
    file = (source if source.is_dir() else source.parent) / "config.json"
    try:
        config: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{file} cannot be read ({error}): it says how wide and deep the decoder is. Download "
            "the whole folder of the checkpoint."
        ) from error
    return config


def read_tensors(source: Path) -> dict[str, Tensor]:
    """All tensors of a checkpoint by name.

    Raises:
        ValueError: if a file is missing, damaged, or would run code.
    """
    tensors: dict[str, Tensor] = {}
    for file in _files(source):
        read = safetensors_content if file.suffix == ".safetensors" else _torch_file
        for name, tensor in read(file).items():
            if name in tensors:
                raise ValueError(
                    f"{name} is in two files of {source}: which one counts is not known. Keep one "
                    "kind of files, safetensors or torch."
                )
            tensors[name] = tensor
    return tensors


def _files(source: Path) -> list[Path]:
    if source.is_file():
        return [source]
    for index in sorted(source.glob("*.index.json")):
        named = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        missing = sorted(name for name in named if not (source / name).is_file())
        if missing:
            raise ValueError(
                f"{index} names {len(named)} files, and {missing[:3]} are not there: part of the "
                "model would be missing. Download them."
            )
        return [source / name for name in sorted(named)]
    for pattern in ("*.safetensors", *_TORCH):
        files = sorted(source.glob(pattern))
        if files:
            return files
    raise ValueError(
        f"{source} holds no weights: no *.safetensors, *.bin, *.pt or *.pth. Give the folder of a "
        "downloaded checkpoint, or one file of weights."
    )


def safetensors_content(file: Path) -> dict[str, Tensor]:
    """All tensors of one safetensors file.

    Raises:
        ValueError: if it is damaged.
    """
    try:
        with safe_open(file, framework="pt") as stream:
            return {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{file} cannot be read ({error}). Download it again.") from error


def _torch_file(file: Path) -> dict[str, Tensor]:
    content = torch_content(file, mmap=True)
    content = content.get("state_dict", content) if isinstance(content, Mapping) else {}
    tensors = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        raise ValueError(f"{file} holds no tensors by name. Give a state dict.")
    return tensors


def torch_content(file: Path, mmap: bool = False) -> Any:
    """What `torch.save` wrote, if it is made of tensors and plain values; nothing in it is run.

    Raises:
        ValueError: if it is damaged, no such file, or asks for anything else.
    """
    try:
        return torch.load(file, map_location="cpu", weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL (\S+)", str(error))
        refused = f"asks for {named[1]}, which weights do not need" if named else _reason(error)
        raise ValueError(
            f"{file} {refused}, so it was not read any further. Get it from its authors, or save "
            "its `state_dict()` as safetensors on a machine you can spare."
        ) from error
    except Exception as error:  # over damaged bytes an unpickler stumbles in any way
        what = next(iter(str(error).strip().splitlines()), "nothing said")
        raise ValueError(
            f"{file} cannot be read ({type(error).__name__}: {what}): it is damaged, or not what "
            "torch writes. Download it again."
        ) from error


def _reason(error: pickle.UnpicklingError) -> str:
    """Why a file that names no class was refused."""
    if "persistent_load of storage" in str(error):
        return "holds a whole module in torch's format of before 1.6, which only runs as code"
    return "is no file of tensors as torch writes it"


def fill(
    own: Mapping[str, Tensor], taken: Mapping[str, tuple[str, Tensor]], source: Path
) -> dict[str, Tensor]:
    """The state of a model from tensors that are known by its own names.

    Args:
        own: the model's state, for names and shapes.
        taken: name here -> name there and tensor.
        source: the checkpoint, for the message.

    Raises:
        ValueError: if one is missing, unknown or of another shape.
    """
    missing = sorted(own.keys() - taken.keys())
    unknown = sorted(taken[name][0] for name in taken.keys() - own.keys())
    wrong = [
        f"{theirs} is {tuple(tensor.shape)}, not {tuple(own[name].shape)}"
        for name, (theirs, tensor) in taken.items()
        if name in own and own[name].shape != tensor.shape
    ]
    if missing or unknown or wrong:
        raise ValueError(
            f"{source} does not fill the model: {len(missing)} tensors are missing {missing[:3]}, "
            f"{len(unknown)} have no place {unknown[:3]}, {len(wrong)} another shape {wrong[:3]}. "
            "With any of them left out the model would be a random one in part, so nothing was "
            "written. Is it the whole checkpoint, and of the version that was named?"
        )
    return {name: taken[name][1] for name in own}
