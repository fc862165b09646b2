"""Checkpoints that survive a kill, a full disk and a flipped bit.

`files` finds and verifies what is on disk, `weights` reads and writes weights alone, `atomic` is
how Lightning writes, `callback` decides when.
"""

from lit_eve.checkpoints.atomic import AtomicCheckpointIO
from lit_eve.checkpoints.callback import Checkpoints
from lit_eve.checkpoints.files import CheckpointError, newest, verify
from lit_eve.checkpoints.weights import consolidate, read_weights, write_weights

__all__ = [
    "AtomicCheckpointIO",
    "CheckpointError",
    "Checkpoints",
    "consolidate",
    "newest",
    "read_weights",
    "verify",
    "write_weights",
]
