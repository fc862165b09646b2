"""Files that claim to be more than they are."""

from __future__ import annotations

import struct
import zlib


def bomb(side: int = 20_000) -> bytes:
    """A PNG of a few bytes that claims to be a square of so many pixels a side."""
    chunks = (b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0), b"IDAT", b"IEND")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        for chunk in chunks
    )
