"""From planned rows to a packed batch: what a worker does with a task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from lit_eve_data.batches import PackedBatch, StepShare
from lit_eve_data.disk.features import StoredTeacher
from lit_eve_data.disk.reading import RecordView
from lit_eve_data.disk.records import BadSampleError
from lit_eve_data.loading.working import ALONE, Made, Share
from lit_eve_data.packing.lengths import SampleEncoder
from lit_eve_data.packing.plan import Pack
from lit_eve_data.packing.rows import Item, collate

__all__ = ["ALONE", "Assembler", "RowsTask", "Share"]


@dataclass(frozen=True)
class RowsTask:
    """One packed batch to be made."""

    rows: Sequence[Pack]
    share: StepShare


@dataclass(frozen=True)
class Assembler:
    """Makes packed batches; what a worker process holds."""

    views: Sequence[RecordView]
    encoder: SampleEncoder
    tokens_per_row: int
    teachers: Sequence[StoredTeacher] = ()
    """Of each view, if features are streamed."""

    def __call__(self, task: RowsTask) -> Made[PackedBatch]:
        """Read, encode and collate; a sample that fails leaves its place in the row empty."""
        failed: list[tuple[str, str]] = []
        rows: list[list[Item]] = []
        for pack in task.rows:
            rows.append([])
            for source, index in pack:
                try:
                    rows[-1].append(self._item(source, index))
                except BadSampleError as error:
                    failed.append((error.reason, str(error)))
        batch = collate(
            rows,
            self.tokens_per_row,
            self.encoder.text.pad_id,
            self.encoder.cutter,
            task.share,
            len(failed),
        )
        return Made(batch, sum(map(len, task.rows)), failed)

    def _item(self, source: int, index: int) -> Item:
        item = self.encoder.item(self.views[source], index)
        if not self.teachers:
            return item
        return replace(item, seen=self.teachers[source].of(index, len(item.images)))
