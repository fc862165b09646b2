"""LitData's chunks, written without copying a record.

LitData's own writer copies every record four times and holds a chunk three times in memory. The
format is plain: how many, where each begins, then each with its length. A test compares with the
file that LitData writes, and what was written is read back through LitData before it counts.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from lit_eve_data.disk.manifest import FileStamp

_NUMBER = struct.Struct("<I")
_LARGEST = 2**32 - 1  # bytes of a chunk: its offsets are numbers of 32 bits


def write_chunk(path: Path, records: Sequence[bytes]) -> FileStamp:
    """Write records as one chunk, hashed on the way.

    Raises:
        ValueError: if they are more than a chunk can hold.
    """
    head = _NUMBER.size * (len(records) + 2)
    sizes = np.array([_NUMBER.size + len(record) for record in records], np.int64)
    offsets = head + np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])  # (N + 1,)
    if offsets[-1] > _LARGEST:
        raise ValueError(
            f"{len(records)} records of {offsets[-1]:,} bytes are more than a chunk can hold. "
            "Lower chunk_bytes, or store smaller pictures (--max-side)."
        )
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for part in (_NUMBER.pack(len(records)), offsets.astype("<u4").tobytes()):
            digest.update(part)
            file.write(part)
        for record in records:
            for part in (_NUMBER.pack(len(record)), record):
                digest.update(part)
                file.write(part)
    return FileStamp(int(offsets[-1]), digest.hexdigest())


@cache
def litdata_config() -> dict[str, Any]:
    """What LitData's index says of chunks of records that are bytes; as LitData itself says it."""
    from litdata.streaming.writer import BinaryWriter  # type: ignore[import-untyped]  # seconds

    with TemporaryDirectory() as folder:
        writer = BinaryWriter(folder, chunk_bytes=1 << 20)
        writer.add_item(0, b"")
        config: dict[str, Any] = writer.get_config()
    return config
