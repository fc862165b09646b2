from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from safetensors.torch import load_file

from lit_eve.checkpoints import (
    AtomicCheckpointIO,
    CheckpointError,
    Checkpoints,
    atomic,
    consolidate,
    files,
    newest,
    read_weights,
    verify,
    write_weights,
)
from tests.tiny_training import Task, fit


def content(step: int, size: int = 100) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(step)
    state = {"model.weight": torch.randn(size, generator=generator)}
    return {"global_step": step, "state_dict": state, "epoch": 0}


def save(directory: Path, step: int, size: int = 100) -> Path:
    path = directory / files.checkpoint_name(step)
    AtomicCheckpointIO().save_checkpoint(content(step, size), path)
    return path


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def flip_a_bit(path: Path, near: float = 0.5) -> None:
    data = bytearray(path.read_bytes())
    data[int(len(data) * near)] ^= 1
    path.write_bytes(data)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def lose_the_manifest(path: Path) -> None:
    files.manifest_path(path).unlink()


def halve_the_manifest(path: Path) -> None:
    truncate(files.manifest_path(path))


def lose_the_file(path: Path) -> None:
    path.unlink()


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    path = save(tmp_path, 200)
    loaded = AtomicCheckpointIO().load_checkpoint(path)
    assert loaded["global_step"] == 200
    assert torch.equal(
        loaded["state_dict"]["model.weight"], content(200)["state_dict"]["model.weight"]
    )
    assert names(tmp_path) == ["step-00000200.ckpt", "step-00000200.ckpt.json"]


def test_a_checkpoint_never_goes_through_the_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lightning's does: where that is another disk, a kill while it is copied loses both files."""
    monkeypatch.setenv("TMPDIR", str(tmp_path / "nowhere"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    path = save(tmp_path, 3)
    assert newest(tmp_path) == path


def test_the_manifest_states_step_size_and_an_independent_checksum(tmp_path: Path) -> None:
    path = save(tmp_path, 7)
    entry = json.loads(files.manifest_path(path).read_text())
    shell = subprocess.run(["sha256sum", path], capture_output=True, text=True, check=True)
    assert entry == {
        "step": 7,
        "world_size": 1,
        "files": {".": {"size": path.stat().st_size, "sha256": shell.stdout.split()[0]}},
    }


def test_newest_goes_by_the_step_in_the_manifest_not_by_time_or_name(tmp_path: Path) -> None:
    late = save(tmp_path, 900)
    save(tmp_path, 20)
    named = tmp_path / "zzz.ckpt"
    AtomicCheckpointIO().save_checkpoint(content(3), named)
    os.utime(late, (0, 0))
    assert newest(tmp_path) == late


def test_nothing_is_found_where_there_is_nothing(tmp_path: Path) -> None:
    assert newest(tmp_path) is None
    assert newest(tmp_path / "absent") is None


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (flip_a_bit, "SHA-256 differs"),
        (truncate, "bytes long instead of"),
        (lose_the_manifest, "never finished"),
        (halve_the_manifest, "manifest cannot be read"),
    ],
)
def test_a_damaged_checkpoint_is_reported_and_the_one_before_it_is_used(
    damage: Any, reason: str, tmp_path: Path
) -> None:
    good, bad = save(tmp_path, 100), save(tmp_path, 200)
    damage(bad)
    messages: list[str] = []
    assert newest(tmp_path, messages.append) == good
    assert len(messages) == 1
    assert bad.name in messages[0]
    assert reason in messages[0]


@pytest.mark.parametrize("damage", [flip_a_bit, truncate, lose_the_manifest, lose_the_file])
def test_a_damaged_checkpoint_does_not_load(damage: Any, tmp_path: Path) -> None:
    path = save(tmp_path, 100)
    damage(path)
    with pytest.raises(CheckpointError, match="let `lit-eve resume` choose"):
        AtomicCheckpointIO().load_checkpoint(path)


def test_a_bit_flipped_after_the_first_verification_is_found_too(tmp_path: Path) -> None:
    path = save(tmp_path, 100)
    verify(path)
    time.sleep(0.01)  # a coarse clock would show the same time of change
    flip_a_bit(path)
    with pytest.raises(CheckpointError, match="SHA-256 differs"):
        verify(path)


def test_any_flipped_bit_is_found(tmp_path: Path) -> None:
    path = save(tmp_path, 100)
    whole = path.read_bytes()
    for share in (0.0, 0.1, 0.35, 0.6, 0.999):
        path.write_bytes(whole)
        flip_a_bit(path, share)
        with pytest.raises(CheckpointError, match="SHA-256 differs"):
            verify(path)


def test_the_name_last_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Name it by its step, as in step-00000200\.ckpt"):
        AtomicCheckpointIO().save_checkpoint(content(1), tmp_path / "last.ckpt")


def test_options_that_would_be_ignored_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Leave them out"):
        AtomicCheckpointIO().save_checkpoint(content(1), tmp_path / "a.ckpt", storage_options={})


def test_code_in_a_checkpoint_is_never_run(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    with pytest.raises(ValueError, match="would run code"):
        AtomicCheckpointIO().load_checkpoint(path, weights_only=False)


class _FullStream:
    """A disk with room for `room` bytes."""

    def __init__(self, stream: BinaryIO, room: int) -> None:
        self._stream, self._room = stream, room

    def write(self, block: bytes) -> int:
        self._room -= len(block)
        if self._room < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self._stream.write(block)


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    build = atomic._HashingWriter.__init__

    def init(self: atomic._HashingWriter, stream: BinaryIO) -> None:
        build(self, _FullStream(stream, 200))  # type: ignore[arg-type]

    monkeypatch.setattr(atomic._HashingWriter, "__init__", init)
    return monkeypatch


def test_a_full_disk_keeps_the_previous_checkpoint_and_leaves_nothing_behind(
    tmp_path: Path, full_disk: pytest.MonkeyPatch
) -> None:
    with pytest.MonkeyPatch.context() as roomy:
        roomy.setattr(atomic._HashingWriter, "__init__", _original_init)
        good = save(tmp_path, 100)
    with pytest.raises(CheckpointError, match=r"step-00000100\.ckpt is whole.*make room"):
        save(tmp_path, 200)
    assert newest(tmp_path) == good
    assert names(tmp_path) == ["step-00000100.ckpt", "step-00000100.ckpt.json"]


_original_init = atomic._HashingWriter.__init__


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_device_that_is_full_gives_an_error_not_a_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "full").symlink_to("/dev/full")
    monkeypatch.setattr(files, "temporary_beside", lambda path: tmp_path / "full")
    with pytest.raises(CheckpointError, match=r"No space left.*make room"):
        AtomicCheckpointIO().save_checkpoint(content(5, 100_000), tmp_path / "step.ckpt")


def test_a_folder_that_cannot_be_written_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(CheckpointError, match="Make the folder writable"):
        save(tmp_path / "file", 1)


def test_a_disk_that_returns_other_bytes_is_noticed_before_the_old_one_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "sha256_of", lambda file: "0" * 64)
    with pytest.raises(CheckpointError, match="gave back other bytes"):
        save(tmp_path, 1)
    assert names(tmp_path) == []


def test_background_saving_stores_the_values_of_the_moment_it_was_asked(tmp_path: Path) -> None:
    io = AtomicCheckpointIO(background=True)
    checkpoint = content(4, 200_000)
    weight = checkpoint["state_dict"]["model.weight"]
    before = weight.clone()
    io.save_checkpoint(checkpoint, tmp_path / "step-4.ckpt")
    weight.zero_()
    io.finish()
    assert torch.equal(read_weights(tmp_path / "step-4.ckpt")["model.weight"], before)


def test_background_saving_reports_its_failure_at_the_next_occasion(
    tmp_path: Path, full_disk: pytest.MonkeyPatch
) -> None:
    io = AtomicCheckpointIO(background=True)
    io.save_checkpoint(content(4), tmp_path / "step-4.ckpt")
    with pytest.raises(CheckpointError, match="make room"):
        io.finish()
    io.finish()


def test_a_copy_for_the_background_keeps_shared_tensors_shared() -> None:
    tensor = torch.ones(3)
    copy = atomic.on_host({"a": tensor, "b": [tensor.detach()], "c": (torch.ones(3), "text")})
    assert copy["a"].data_ptr() == copy["b"][0].data_ptr() != tensor.data_ptr()
    assert copy["c"][0].data_ptr() != copy["a"].data_ptr()
    assert copy["c"][1] == "text"


def test_an_old_checkpoint_goes_only_when_enough_newer_ones_are_whole(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save(tmp_path, step)
    truncate(tmp_path / files.checkpoint_name(3))
    assert files.prune(tmp_path, keep=2) == []
    save(tmp_path, 4)
    assert [path.name for path in files.prune(tmp_path, keep=2)] == ["step-00000001.ckpt"]
    assert newest(tmp_path, report=lambda message: None) == tmp_path / files.checkpoint_name(4)


def test_the_protected_checkpoint_stays_whatever_its_age(tmp_path: Path) -> None:
    paths = [save(tmp_path, step) for step in (1, 2, 3)]
    assert files.prune(tmp_path, keep=1, protected=paths[0]) == [paths[1]]


def test_leftovers_of_a_killed_save_are_removed_and_checkpoints_are_not(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    (tmp_path / ".step-00000002.ckpt.tmp-123").write_bytes(b"half")
    (tmp_path / ".step-00000003.ckpt.tmp-123").mkdir()
    files.remove_leftovers(tmp_path)
    assert names(tmp_path) == [path.name, path.name + ".json"]


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
    with pytest.raises(CheckpointError, match=r"w\.safetensors cannot be read"):
        read_weights(path)


def train(directory: Path, *more: Callback, **options: Any) -> Trainer:
    chosen = {name: options.pop(name) for name in ("keep", "best", "mode") if name in options}
    every = options.pop("every", 3)
    callbacks = [*more, Checkpoints(directory, every, **chosen)]
    settings: dict[str, Any] = {"max_steps": 10, "plugins": [AtomicCheckpointIO()]}
    return fit(Task(), callbacks, **(settings | options))


def steps(directory: Path) -> list[int]:
    return sorted(int(path.stem.removeprefix("step-")) for path in directory.glob("*.ckpt"))


def test_it_saves_every_n_steps_and_the_last_one_and_keeps_two(tmp_path: Path) -> None:
    train(tmp_path)
    assert steps(tmp_path) == [9, 10]


def test_it_saves_the_last_step_of_the_last_epoch(tmp_path: Path) -> None:
    train(tmp_path, max_steps=-1, max_epochs=2, every=100)
    assert steps(tmp_path) == [12]


def test_it_counts_optimizer_steps_not_batches(tmp_path: Path) -> None:
    train(tmp_path, accumulate_grad_batches=2, max_steps=7, every=2, keep=9)
    assert steps(tmp_path) == [2, 4, 6, 7]


def test_it_saves_before_validation_so_that_a_broken_one_costs_nothing(tmp_path: Path) -> None:
    train(tmp_path, every=100, keep=9, validate=True, val_check_interval=4)
    assert steps(tmp_path) == [4, 8, 10]


class ScoreByStep(Callback):
    """A metric with its best value after step 4."""

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        pl_module.log("val/score", -abs(trainer.global_step - 4.0))


def test_the_best_checkpoint_stays_and_is_on_record(tmp_path: Path) -> None:
    train(
        tmp_path,
        ScoreByStep(),
        every=2,
        keep=1,
        best="val/score",
        mode="max",
        validate=True,
        val_check_interval=2,
    )
    assert steps(tmp_path) == [4, 10]
    assert files.read_best(tmp_path) == files.Best("step-00000004.ckpt", "val/score", 0.0)


def test_an_unlogged_metric_is_refused_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'val/scor'.*Choose one of val/loss"):
        train(tmp_path, best="val/scor", validate=True, val_check_interval=2)


def test_training_survives_a_disk_that_is_full_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write = atomic.write_checkpoint

    def full_at_six(checkpoint: dict[str, Any], path: Path) -> None:
        if checkpoint["global_step"] == 6:
            raise CheckpointError("the disk is full.")
        write(checkpoint, path)

    monkeypatch.setattr(atomic, "write_checkpoint", full_at_six)
    train(tmp_path, keep=9)
    assert steps(tmp_path) == [3, 9, 10]
    assert "the disk is full. Training goes on" in caplog.text


def test_training_does_not_claim_success_if_the_last_checkpoint_fails(
    tmp_path: Path, full_disk: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CheckpointError, match="make room"):
        train(tmp_path)


def test_impossible_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="both must be at least 1"):
        Checkpoints("anywhere", every=0)


def test_looking_for_a_checkpoint_needs_no_torch() -> None:
    source = Path(files.__file__).read_text()
    assert "import torch" not in source
    code = (
        f"import sys, runpy; runpy.run_path({files.__file__!r}); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
