"""Addresses of the experiment file as libraries write them."""

from __future__ import annotations


def name_or_path(address: str) -> str:
    """What Transformers calls a model; `hf:` only says in the file that it is on the hub."""
    return address.removeprefix("hf:")
