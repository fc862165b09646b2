"""A source of samples of changing shapes; its own file, so that workers import little."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lit_eve_data.disk.records import Sample, StoredImage, encode


@dataclass(frozen=True)
class Shapes:
    """Sample n has n % 4 pictures and n % 3 questions; one number may kill its process."""

    deadly: int = -1

    def description(self) -> dict[str, Any]:
        return {"type": "shapes"}

    def splits(self) -> Mapping[str, Sequence[int]]:
        return {"train": range(24)}

    @property
    def maker(self) -> Shapes:
        return self

    def __call__(self, entry: int) -> bytes:
        if entry == self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)  # what the kernel does when memory runs out
        return encode(self.sample(entry))

    def name(self, entry: int) -> str:
        return str(entry)

    def sample(self, entry: int) -> Sample:
        pictures = [
            StoredImage.raw(np.full((16 + n, 16, 3), entry, np.uint8)) for n in range(entry % 4)
        ]
        turns = [
            turn
            for n in range(1 + entry % 3)
            for turn in (
                {"role": "user", "content": "<image>" * (len(pictures) if n == 0 else 0) + "Why?"},
                {"role": "assistant", "content": "x" * n + "!"},
            )
        ]
        facts = {"list": list(range(entry % 5))} if entry else {}
        return Sample(str(entry), f"kind/{entry % 2}", turns, pictures, facts)
