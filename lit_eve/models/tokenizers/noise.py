"""Standard Gumbel noise, a chunk at a time, from torch's own random state.

Shapes: C rows of a chunk, K columns.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

NoiseSource = Callable[[slice], Tensor]
"""Rows of the noise, asked for in order, each once -> (C, K). May be changed by who asked."""

_FIRST, _SECOND = 0x7FEB352D, 0x846CA68B - 2**32  # as signed 32-bit numbers


def gumbel_noise(rows: int, columns: int, chunk: int, like: Tensor) -> NoiseSource:
    """Noise for a matrix of `rows` x `columns`, at most `chunk` rows at once.

    Every chunk is written over the one before.

    Args:
        rows: of the whole matrix.
        columns: K.
        chunk: C, most rows asked for at once.
        like: states the type and device.
    """
    size = (min(rows, chunk), columns)
    if like.is_cuda or like.dtype != torch.float32:
        return _by_torch(like.new_empty(size))
    return _by_hash(like.new_empty(size))


def _by_torch(room: Tensor) -> NoiseSource:
    def draw(rows: slice) -> Tensor:
        return room[: rows.stop - rows.start].exponential_().log_().neg_()

    return draw


def _by_hash(room: Tensor) -> NoiseSource:
    """On a CPU torch draws on one thread; a hash of a counter uses them all.

    Each chunk has its own 64 bits of key from torch's generator, so the noise follows its seed and
    is restored with it. 23 of the 32 hashed bits become a uniform number between 2^-24 and
    1 - 2^-24, which ends the right tail of the noise at 16.6.
    """
    counter = torch.arange(room.numel(), dtype=torch.int32).view_as(room)  # (C, K)
    hashed, scratch = torch.empty_like(counter), torch.empty_like(counter)

    def draw(rows: slice) -> Tensor:
        size = rows.stop - rows.start
        keys = torch.randint(-(2**31), 2**31, (2,)).tolist()
        bits = _mixed(counter[:size], keys, hashed[:size], scratch[:size])
        uniform = room[:size].copy_(_shifted(bits, 9, scratch[:size]))
        uniform.add_(0.5).mul_(2**-23)
        return uniform.log_().neg_().log_().neg_()

    return draw


def _mixed(counter: Tensor, keys: list[int], room: Tensor, scratch: Tensor) -> Tensor:
    """32 well mixed bits of every counter.

    Source:
        The constants and shifts are those of Chris Wellons' `lowbias32`, whose measured bias is
        near the least possible; the second key is added halfway.
    """
    bits = torch.bitwise_xor(counter, keys[0], out=room)
    bits.bitwise_xor_(_shifted(bits, 16, scratch)).mul_(_FIRST).add_(keys[1])
    bits.bitwise_xor_(_shifted(bits, 15, scratch)).mul_(_SECOND)
    return bits.bitwise_xor_(_shifted(bits, 16, scratch))


def _shifted(bits: Tensor, places: int, room: Tensor) -> Tensor:
    """An unsigned shift to the right: torch's copies the sign bit into the places freed."""
    moved = torch.bitwise_right_shift(bits, places, out=room)
    return moved.bitwise_and_((1 << (32 - places)) - 1)
