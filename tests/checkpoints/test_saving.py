"""One file written and read back: whole, damaged, on a full disk, in the background."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from lit_eve.checkpoints import (
    AtomicCheckpointIO,
    CheckpointError,
    atomic,
    files,
    newest,
    read_weights,
    verify,
)
from tests.checkpoints.saved import content, names, save

_original_init = atomic._HashingWriter.__init__


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


def test_looking_for_a_checkpoint_needs_no_torch() -> None:
    source = Path(files.__file__).read_text()
    assert "import torch" not in source
    code = (
        f"import sys, runpy; runpy.run_path({files.__file__!r}); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
