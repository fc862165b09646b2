"""Weights alone: out of any checkpoint, into one file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lit_eve.checkpoints import CheckpointError, consolidate, read_weights, write_weights
from tests.checkpoints.saved import content, names, save


def test_weights_come_back_without_their_prefix(tmp_path: Path) -> None:
    path = save(tmp_path, 3)
    assert list(read_weights(path, prefix="model.")) == ["weight"]
    with pytest.raises(CheckpointError, match=r"starts with 'teacher\.'.*model\.weight"):
        read_weights(path, prefix="teacher.")


def test_tied_weights_are_stored_once_and_come_back_tied(tmp_path: Path) -> None:
    shared = torch.randn(5, 3)
    stored = write_weights(tmp_path / "w.safetensors", {"embed": shared, "head": shared})
    assert list(load_file(stored)) == ["embed"]
    back = read_weights(stored)
    assert torch.equal(back["head"], shared)
    assert back["head"].data_ptr() == back["embed"].data_ptr()


def test_views_of_one_storage_are_stored_apart(tmp_path: Path) -> None:
    whole = torch.arange(6.0)
    weights = {"first": whole[:3], "second": whole[3:], "turned": whole.reshape(2, 3).T}
    back = read_weights(write_weights(tmp_path / "w.safetensors", weights))
    assert all(torch.equal(back[name], weights[name]) for name in weights)


def test_a_checkpoint_consolidates_to_one_safetensors(tmp_path: Path) -> None:
    file = consolidate(save(tmp_path, 3), tmp_path / "out" / "model.safetensors", prefix="model.")
    assert torch.equal(load_file(file)["weight"], content(3)["state_dict"]["model.weight"])
    assert names(tmp_path / "out") == ["model.safetensors"]


def test_unreadable_weights_are_explained(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"nonsense")
    with pytest.raises(CheckpointError, match=r"w\.safetensors cannot be read.*Copy the file"):
        read_weights(path)
