"""An experiment file to start from."""

from __future__ import annotations

import os
import re
from pathlib import Path

EXAMPLE = Path(__file__).with_name("example.yaml")
QUESTION = "What does this experiment find out?"
LIKE = """\
# yaml-language-server: $schema=SCHEMA
# Question: QUESTION
# Run:      lit-eve run FILE            (--tiny first: the same file in a minute)
extends: BASE
name: NAME
question: QUESTION

# Write only what differs, at any depth; `key: null` takes an inherited block away.
# defaults: {batch: 32}
"""


def new_file(name: str, folder: Path, like: Path | None = None) -> Path:
    """Write `folder/name.yaml`: the commented example, or an extension of another file.

    Args:
        name: of the experiment.
        folder: where to write it; made if it is not there.
        like: the file to extend; None for the example.

    Raises:
        ValueError: if the name is none, the file exists or the one to extend does not.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        raise ValueError(
            f"{name!r} cannot name an experiment: it becomes the folder of its runs. Use letters, "
            "digits, - and _."
        )
    file = folder / f"{name}.yaml"
    if file.exists():
        raise ValueError(f"{file} exists already and would be lost. Choose another name.")
    if like is not None and not like.is_file():
        raise ValueError(f"{like} is no file to start from. `lit-eve ls experiments` lists them.")
    folder.mkdir(parents=True, exist_ok=True)
    words = {
        "SCHEMA": _schema_beside(folder),
        "QUESTION": QUESTION,
        "FILE": str(file),
        "NAME": name,
        "BASE": "" if like is None else Path(os.path.relpath(like, folder)).as_posix(),
    }
    text = LIKE if like is not None else EXAMPLE.read_text(encoding="utf-8")
    file.write_text(
        re.sub(r"\b(SCHEMA|QUESTION|FILE|NAME|BASE)\b", lambda found: words[found[0]], text),
        encoding="utf-8",
    )
    return file


def _schema_beside(folder: Path) -> str:
    """The way to the JSON Schema: the nearest one above, or where `lit-eve schema` writes it."""
    for depth, place in enumerate([folder.resolve(), *folder.resolve().parents]):
        if (place / "schema.json").is_file():
            return "../" * depth + "schema.json"
    return "schema.json"
