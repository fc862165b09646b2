"""Which data a run reads: told by digests of its content, not by names that may be reused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lit_eve.running.kinds import Kind
from lit_eve.tracking.spool import Spool
from lit_eve_data.disk.manifest import read_manifest

DATA_FILE = "data.json"


def data_of(folders: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
    """What identifies the datasets of a run, by name.

    Args:
        folders: of the prepared datasets.

    Returns:
        `digest` of the whole content, `type` of the source, `path`, and `splits`: samples and
        digest of each.
    """
    found: dict[str, dict[str, Any]] = {}
    for name, folder in folders.items():
        manifest = read_manifest(folder)
        found[name] = {
            "digest": manifest.fingerprint,
            "type": manifest.source.get("type"),
            "path": str(folder),
            "splits": {
                split: {"samples": content.samples, "digest": manifest.digest(split)}
                for split, content in manifest.splits.items()
            },
        }
    return found


def record_run(kind: Kind[Any, Any], spool: Spool) -> None:
    """All datasets of a run: into its `data.json` and its spool."""
    data = data_of(kind.datasets)
    if spool.writes:
        kind.directory.write_json(DATA_FILE, data)
    for name, facts in data.items():
        _record(spool, name, facts)


def record_stage(kind: Kind[Any, Any], stage: str, spool: Spool) -> None:
    """What a stage trains on, as its `data:` names it."""
    for source in kind.experiment.trained[stage].data:
        head = source.partition(".")[0]
        _record(spool, source, data_of({head: kind.datasets[head]})[head])


def _record(spool: Spool, name: str, facts: Mapping[str, Any]) -> None:
    samples = {split: told["samples"] for split, told in facts["splits"].items()}
    spool.dataset(name, facts["digest"], facts["path"], samples=samples)
