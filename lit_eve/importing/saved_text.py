"""The text tokenizer that a run or an exported model left in a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from lit_eve_data.encoding.text import MARKERS, ChatText

PROCESSOR = "processor_config.json"
"""Where an exported model keeps its chat format."""


def has_saved_text(folder: Path) -> bool:
    """Whether `saved_text` can read it."""
    return (folder / MARKERS).is_file() or _chat(folder) is not None


def saved_text(folder: Path) -> ChatText:
    """The tokenizer of a folder, with its chat format.

    Args:
        folder: of an exported model, or `text/` of a run.

    Raises:
        ValueError: if there is none.
    """
    chat = _chat(folder)
    if chat is not None:
        return ChatText.of(Tokenizer.from_file(str(folder / "tokenizer.json")), chat)
    if not (folder / MARKERS).is_file():
        raise ValueError(
            f"{folder} holds no text tokenizer of this platform: neither {MARKERS} of a run nor "
            f"{PROCESSOR} of an export. Give `text/` of a run, or a folder that `lit-eve export` "
            "wrote."
        )
    return ChatText.load(folder)


def _chat(folder: Path) -> dict[str, Any] | None:
    """The chat format that an exported model keeps with its processor."""
    file = folder / PROCESSOR
    if not file.is_file():
        return None
    chat: dict[str, Any] | None = json.loads(file.read_text(encoding="utf-8")).get("chat")
    return chat
