"""Conversations as LLaVA's JSON has them, and as other programs write them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lit_eve_data.disk.records import IMAGE, BadSampleError, Sample, StoredImage, Turn, encode
from lit_eve_data.sources.validation import check_text, check_turns

CAPTION_PROMPT = "Describe the image."
_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "system": "system",
}


def turns_of(entries: Any) -> list[Turn]:
    """Turns from `{"from": ..., "value": ...}` or `{"role": ..., "content": ...}`.

    Raises:
        BadSampleError: if that is not what they are.
    """
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise BadSampleError("turns", "the conversation is no list of turns.")
    turns = []
    for entry in entries:
        speaker = entry.get("from", entry.get("role"))
        if not isinstance(speaker, str) or speaker not in _ROLES:
            raise BadSampleError("turns", f"{speaker!r} is none of the speakers {list(_ROLES)}.")
        words = check_text(entry.get("value", entry.get("content")))
        turns.append({"role": _ROLES[speaker], "content": words})
    return turns


def kind_of(turns: Sequence[Turn], num_images: int) -> str:
    """What to call a conversation: by its images."""
    if not turns:
        return "image/plain"
    return f"conversation/{('text', 'image')[num_images] if num_images < 2 else 'images'}"


def conversation(
    name: str, turns: list[Turn], images: list[StoredImage], kind: str | None = None
) -> bytes:
    """The record of a checked conversation.

    Raises:
        BadSampleError: if it cannot be learnt from.
    """
    if turns:
        check_turns(turns, len(images))
    sample = Sample(name, kind or kind_of(turns, len(images)), turns, images)
    return encode(sample)


def captioned(name: str, caption: str, images: list[StoredImage], kind: str) -> bytes:
    """The record of images with one caption."""
    prompt = CAPTION_PROMPT if len(images) == 1 else CAPTION_PROMPT.replace("image", "images")
    turns = [
        {"role": "user", "content": f"{IMAGE}\n" * len(images) + prompt},
        {"role": "assistant", "content": caption},
    ]
    return conversation(name, turns, images, kind)


def placed(turns: list[Turn], num_images: int) -> list[Turn]:
    """The turns with all images before the first words, if they name no place for them."""
    if not turns or any(IMAGE in turn["content"] for turn in turns):
        return turns
    first = next((n for n, turn in enumerate(turns) if turn["role"] == "user"), 0)
    begun = {**turns[first], "content": f"{IMAGE}\n" * num_images + turns[first]["content"]}
    return [*turns[:first], begun, *turns[first + 1 :]]
