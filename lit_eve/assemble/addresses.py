"""Addresses of the experiment file as libraries write them."""

from __future__ import annotations

from pathlib import Path


def name_or_path(address: str) -> str:
    """What Transformers calls a model: a name on the hub, or a folder that is there.

    Raises:
        ValueError: if an address without `hf:` is no folder; Transformers would ask the hub for it.
    """
    if address.startswith("hf:"):
        return address.removeprefix("hf:")
    if not Path(address).is_dir():
        raise ValueError(
            f"{address} is no folder, so there is no model to start from. Train it first if "
            f"another experiment leaves it there, or write hf:{address} for a model of the hub."
        )
    return address
