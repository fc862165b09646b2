from __future__ import annotations

import errno
import os
from typing import BinaryIO

import pytest

from lit_eve.checkpoints import atomic


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
