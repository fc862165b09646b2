"""What a run ran in: versions, machine, command, and the state of the source."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from lit_eve.tracking.redact import redact, redact_urls

PACKAGES = (
    "lit-eve",
    "torch",
    "lightning",
    "litdata",
    "transformers",
    "tokenizers",
    "mlflow",
    "optuna",
    "numpy",
    "pillow",
    "omegaconf",
    "pydantic",
    "safetensors",
    "torchmetrics",
)
MAX_DIFF = 1_000_000
"""Characters of uncommitted changes that are kept; more than that is no code."""


def snapshot(directory: Path | None = None) -> dict[str, Any]:
    """Everything of the surroundings that a repetition needs, ready for JSON.

    Args:
        directory: whose git repository is meant, by default that of the current directory.

    Returns:
        `time`, `command`, `python`, `platform`, `host`, `cpus`, `memory_gib`, `accelerators` (known
        if torch was imported before), `packages` (name to version) and `git`: `commit`, `branch`,
        `dirty`, `diff`, `remote`; None outside a repository. Logins and secrets are removed.
    """
    import psutil

    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": redact(" ".join([Path(sys.argv[0]).name, *sys.argv[1:]])),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "host": socket.gethostname(),
        "cpus": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "accelerators": _accelerators(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "git": git_state(directory),
    }


def git_state(directory: Path | None = None) -> dict[str, Any] | None:
    """Commit, branch and uncommitted changes; None if there is no repository or no git.

    The diff covers tracked files, against the commit; names of untracked files are listed in
    `untracked`, since they may be needed and may be anything.
    """
    folder = Path(directory or Path.cwd())
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return None
    diff = _git(folder, "diff", "HEAD", "--no-color", "--no-ext-diff") or ""
    untracked = (_git(folder, "ls-files", "--others", "--exclude-standard") or "").splitlines()
    if len(diff) > MAX_DIFF:
        diff = diff[:MAX_DIFF] + "\n... cut\n"
    return {
        "commit": commit,
        "branch": _git(folder, "rev-parse", "--abbrev-ref", "HEAD"),
        "dirty": bool(diff or untracked),
        "remote": redact_urls(_git(folder, "remote", "get-url", "origin") or "") or None,
        "untracked": untracked[:100],
        "diff": redact_urls(diff) + "\n" if diff else "",
    }


def git_tags(git: dict[str, Any] | None) -> dict[str, str]:
    """The state of the source as tags of a run; MLflow links the first two."""
    if git is None:
        return {}
    return {
        "mlflow.source.git.commit": str(git["commit"]),
        "mlflow.source.git.branch": str(git["branch"]),
        "git.dirty": str(git["dirty"]).lower(),
    }


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=20,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.rstrip("\n")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _accelerators() -> list[str]:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return []
    return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
