"""Runs that go on with another number of micro-batches in an optimizer step."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

KEY = "micro_batches"


class MicroBatches(Callback):
    """Counts what a checkpoint says of batches in micro-batches of this run.

    Lightning counts micro-batches, and from that count it knows when a step is complete, when to
    validate and when an epoch ends. A run that goes on with other devices accumulates another
    number of them, so the count of the checkpoint, always of whole steps, is put into the new ones.

    Args:
        per_step: micro-batches of one optimizer step on each device.

    Raises:
        ValueError: if `per_step` is not positive.
    """

    def __init__(self, per_step: int) -> None:
        if per_step < 1:
            raise ValueError(f"{per_step} micro-batches make no step: give 1 or more.")
        self.per_step = per_step

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Say what the counts are in."""
        checkpoint[KEY] = self.per_step

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Lightning reads its loops after this."""
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        for counts in (progress["total"], progress["current"]):
            counts.update(recounted(counts, checkpoint.get(KEY, 1), self.per_step))


def recounted(counts: dict[str, int], before: int, after: int) -> dict[str, int]:
    """Counts of micro-batches that are `before` a step, where `after` are.

    Args:
        counts: begun (`ready`) and, one less in the middle of saving, `completed` ones.
        before: micro-batches of a step when they were counted.
        after: micro-batches of a step now.

    Raises:
        ValueError: if they are not of whole steps.
    """
    if before == after:
        return dict(counts)
    ready = counts["ready"]
    if ready % before:
        raise ValueError(
            f"the checkpoint was saved after micro-batch {ready % before} of {before} of a step, "
            f"and a step now has {after}. Go on with the devices it was saved with."
        )
    there = ready // before * after
    return {name: there - (ready - count) for name, count in counts.items()}
