from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lit_eve.tracking.environment import git_state, git_tags, snapshot


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-b", "main")
    (tmp_path / "a.txt").write_text("one\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "first")
    git(tmp_path, "remote", "add", "origin", "https://me:secret@host/repo")
    return tmp_path


def test_a_clean_checkout_is_named_by_its_commit(repository: Path) -> None:
    state = git_state(repository)
    assert state is not None
    assert len(state["commit"]) == 40
    assert (state["branch"], state["dirty"], state["diff"]) == ("main", False, "")
    assert state["remote"] == "https://***@host/repo"


def test_uncommitted_changes_can_be_applied_again(repository: Path) -> None:
    (repository / "a.txt").write_text("one\ntwo\n")
    (repository / "new.txt").write_text("three\n")
    state = git_state(repository)
    assert state is not None
    assert (state["dirty"], state["untracked"]) == (True, ["new.txt"])
    git(repository, "checkout", "a.txt")
    subprocess.run(["git", "apply"], cwd=repository, input=state["diff"].encode(), check=True)
    assert (repository / "a.txt").read_text() == "one\ntwo\n"
    assert git_tags(state)["git.dirty"] == "true"


def test_outside_a_repository_there_is_no_git_state(tmp_path: Path) -> None:
    assert git_state(tmp_path) is None
    assert git_tags(None) == {}


def test_a_snapshot_is_json_without_secrets(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["/bin/lit-eve", "run", "a.yaml", "tracking.uri=http://me:hunter2@host"]
    monkeypatch.setattr(sys, "argv", command)
    taken = snapshot(repository)
    text = json.dumps(taken)
    assert "hunter2" not in text
    assert taken["command"] == "lit-eve run a.yaml tracking.uri=http://***@host"
    assert taken["packages"]["lightning"].startswith("2.")
    assert taken["git"]["branch"] == "main"
