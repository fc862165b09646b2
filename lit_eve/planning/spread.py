"""How a step is spread over devices: what each of them holds, and works on at once."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from lit_eve.schema.running import Hardware


@dataclass(frozen=True)
class Spread:
    """The `hardware:` block, for so many devices."""

    devices: int
    shards: int
    """Devices that share one copy of weights, gradients and moments."""
    offload: bool
    recompute: bool
    micro_batch: int | None
    """Most rows that a device works on at once; None for its whole part of a step, also where
    it has not been found yet how many fit."""

    @classmethod
    def of(cls, hardware: Hardware, devices: int) -> Spread:
        """As a file says, on `devices` devices of all machines together."""
        copies = {"fsdp": 1, "hsdp": hardware.replicate or hardware.nodes}
        return cls(
            devices,
            max(1, devices // copies.get(hardware.strategy, devices)),
            hardware.offload,
            hardware.activation_checkpointing,
            hardware.micro_batch if isinstance(hardware.micro_batch, int) else None,
        )

    def rounds(self, rows: int) -> int:
        """Micro-batches in which every device works through its part of a step of `rows` rows."""
        if self.micro_batch is None:
            return 1
        return ceil(rows / (self.devices * self.micro_batch))

    def at_once(self, rows: int) -> int:
        """Rows of the largest micro-batch of a step of `rows` rows."""
        return ceil(rows / (self.devices * self.rounds(rows)))
