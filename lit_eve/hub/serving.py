"""An exported model as MLflow serves it: prompts and pictures of an HTTP request in, answers out.

MLflow imports this module by its name and calls `_load_pyfunc`; nothing is unpickled.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from lit_eve.inference.assistant import Assistant, Decoding, Question, ask
from lit_eve_data.disk.records import BadSampleError, StoredImage
from lit_eve_data.packing.lengths import SampleEncoder
from lit_eve_data.sources.validation import MOST_BYTES, ImageRules, check_image

PROMPT, IMAGES = "prompt", "images"
"""Columns of a request."""
PARAMETERS: Mapping[str, int | float] = {
    "max_new_tokens": 64,
    "temperature": 0.0,
    "top_p": 1.0,
    "seed": 0,
}
"""Parameters of a request and what they are if it says nothing."""


def assistant_of(folder: Path) -> Assistant:
    """An exported model, to be asked as a run's own would be."""
    opener: Any = AutoModelForImageTextToText
    reader: Any = AutoProcessor
    processor = reader.from_pretrained(folder)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = opener.from_pretrained(folder).model.to(device).eval()
    encoder = SampleEncoder(processor.text, processor.image_processor.cutter)
    return Assistant(model, encoder, "exported", folder)


class Served:
    """What MLflow asks.

    Args:
        assistant: that answers.
    """

    def __init__(self, assistant: Assistant) -> None:
        self.assistant = assistant

    def predict(self, model_input: Any, params: Mapping[str, Any] | None = None) -> list[str]:
        """One answer for every row of a table.

        Args:
            model_input: a data frame with `prompt`, and `images` if there are some: a list for
                each row, of files in base64 or as data URLs. Paths and addresses are not opened.
            params: see `PARAMETERS`.

        Raises:
            ValueError: if a picture cannot be read, does not fit its prompt, or there is no room.
        """
        options = {**PARAMETERS, **(params or {})}
        seed = int(options.pop("seed"))
        decoding = Decoding(**options).checked()
        questions = list(_questions(model_input, seed))
        return [answer.text for answer in self.assistant.answers(questions, decoding)]


def _load_pyfunc(folder: str) -> Served:
    return Served(assistant_of(Path(folder)))


def _questions(table: Any, seed: int) -> Iterator[Question]:
    prompts = table[PROMPT].tolist()
    images = table[IMAGES].tolist() if IMAGES in table else [None] * len(prompts)
    for number, (prompt, files) in enumerate(zip(prompts, images, strict=True)):
        place = f"row {number}"
        pictures = [_picture(file, place) for file in ([] if files is None else files)]
        yield ask(prompt, pictures, seed + number, place)


def _picture(text: str, place: str) -> StoredImage:
    """A file in base64 as the data rooms would store it."""
    head, _, body = text.rpartition(",")
    try:
        if head and not (head.startswith("data:") and head.endswith(";base64")):
            raise ValueError("it does not begin as a data URL")
        if len(body) > MOST_BYTES * 4 // 3 + 4:
            raise ValueError(f"it has more than {MOST_BYTES:,} bytes")
        return check_image(base64.b64decode(body, validate=True), ImageRules())
    except (binascii.Error, ValueError, BadSampleError) as error:
        raise ValueError(
            f"{place}: an image cannot be read ({error}). Send a whole PNG, JPEG or WebP file in "
            "base64; paths and addresses are not opened."
        ) from error
