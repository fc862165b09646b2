"""The loader of packed batches: deterministic, resumable anywhere, the same with any workers."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from lit_eve_data.batches import PackedBatch
from lit_eve_data.disk.features import StoredTeacher
from lit_eve_data.disk.reading import RecordView
from lit_eve_data.loading.assembling import Assembler, RowsTask
from lit_eve_data.loading.resumable import ResumableLoader
from lit_eve_data.loading.working import ALONE, Share
from lit_eve_data.packing.lengths import SampleEncoder
from lit_eve_data.packing.orders import WINDOW
from lit_eve_data.packing.plan import Pack, PackingPlan


class PackedLoader(ResumableLoader[RowsTask, PackedBatch]):
    """Packed batches of a plan, for ever, in virtual epochs of `steps` steps.

    Args:
        plan: which samples come when.
        views: the samples, one view for each source of the plan.
        encoder: turns samples into items.
        steps: optimizer steps of a virtual epoch.
        share: this process's part of a step.
        workers: processes that read ahead; 0 reads in this one.
        teachers: of each view, if a teacher's features are streamed.

    Raises:
        ValueError: if a step has fewer rows than it must be shared among.
    """

    def __init__(
        self,
        plan: PackingPlan,
        views: Sequence[RecordView],
        encoder: SampleEncoder,
        steps: int,
        share: Share = ALONE,
        workers: int = 0,
        teachers: Sequence[StoredTeacher] = (),
    ) -> None:
        if plan.rows_per_step < share.world:
            raise ValueError(
                f"a step has {plan.rows_per_step} rows of {plan.tokens_per_row} tokens, too few "
                f"for {share.world} processes. Raise batch, lower tokens_per_row or use fewer "
                "devices."
            )
        self.plan = plan
        self._far = {n: view for n, view in enumerate(views) if view.store.is_elsewhere}
        make = Assembler(views, encoder, plan.tokens_per_row, teachers)
        lookahead = ceil(WINDOW * plan.lanes / plan.samples_per_step) if self._far else 0
        super().__init__(
            plan, self._divide, make, steps, share, workers, self._fetch_ahead, lookahead
        )

    def _divide(self, rows: Sequence[Pack]) -> list[RowsTask]:
        """This process's micro-batches of a step."""
        share = self.plan.share(rows, self.share.pieces)
        return [RowsTask(piece or [[]], share) for piece in self.share.of(rows)]  # one row at least

    def _fetch_ahead(self, rows: Sequence[Pack]) -> None:
        """Begin to fetch what this process will need of datasets that lie elsewhere."""
        mine = [sample for piece in self.share.of(rows) for pack in piece for sample in pack]
        for number, view in self._far.items():
            view.fetch_ahead([index for source, index in mine if source == number])
