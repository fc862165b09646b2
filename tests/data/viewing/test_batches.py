"""The drawing of a batch shows what is in the batch, and where."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lit_eve_data.batches import IGNORE, ImageBatch, PackedBatch
from lit_eve_data.disk.reading import RecordStore
from lit_eve_data.loading.loader import PackedLoader
from lit_eve_data.packing.lengths import SampleEncoder
from lit_eve_data.packing.plan import PackingPlan
from lit_eve_data.viewing import batches
from lit_eve_data.viewing.batches import draw_images, draw_rows


@pytest.fixture(scope="module")
def batch(scenes: RecordStore, encoder: SampleEncoder) -> PackedBatch:
    plan = PackingPlan([encoder.lengths("scenes", scenes.view, 1.0)], 256, 24, 0)
    return next(iter(PackedLoader(plan, [scenes.view], encoder, steps=1)))


def test_pictures_are_those_the_model_gets(
    batch: PackedBatch, encoder: SampleEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    monkeypatch.setattr(batches, "_gridded", lambda pixels, *_: seen.append(pixels))
    batches._pictures(batch, encoder.cutter)
    again = encoder.cutter.cut(seen)
    assert again.grids == batch.images.grids
    assert torch.allclose(again.patches, batch.images.patches, atol=1e-5)


def test_the_bar_shows_every_slot_in_its_colour(batch: PackedBatch, encoder: SampleEncoder) -> None:
    visual = batches._visual(batch, encoder.cutter.layout)
    assert (visual >= 0).sum() == len(batch.image_slots)
    row = int((batch.segment_ids == 0).sum(1).argmax())  # the emptiest
    segments = batch.segment_ids[row].numpy()
    learnt = batch.labels[row].numpy() != IGNORE
    bar = np.asarray(batches._bar(segments, visual[row], learnt, len(segments)))[7, 1:-1]
    begins = np.diff(segments, prepend=0)[1:-1] != 0
    for mask, colour in (
        (visual[row][1:-1] >= 0, batches.VISUAL),
        (learnt[1:-1], batches.LEARNT),
        (segments[1:-1] == 0, batches.PAPER),
    ):
        assert (bar[mask & ~begins] == colour).all()
        assert (mask & ~begins).any()
    assert (bar[begins] == batches.INK).all()


def test_words_are_split_where_learning_begins(batch: PackedBatch, encoder: SampleEncoder) -> None:
    places = np.flatnonzero(batch.segment_ids[0].numpy() == 1)
    visual = batches._visual(batch, encoder.cutter.layout)[0]
    learnt = batch.labels[0].numpy() != IGNORE
    ids = batch.token_ids[0].numpy()
    runs = list(batches._runs(ids, visual, learnt, places, encoder.text))
    colours = [run.colour for run in runs]
    assert colours == [batches.INK, batches.VISUAL, batches.INK, batches.LEARNT]
    assert runs[0].words == "<user>"
    assert runs[1].words == f"[{(visual[places] >= 0).sum()} visual tokens]"
    assert runs[2].words.endswith("<assistant>")
    assert runs[3].words.endswith("<end>")


def test_rows_and_pictures_make_one_sheet(batch: PackedBatch, encoder: SampleEncoder) -> None:
    one = draw_rows(batch, encoder.text, encoder.cutter, rows=1)
    two = draw_rows(batch, encoder.text, encoder.cutter, rows=2)
    assert two.width >= one.width > 600
    assert two.height > one.height > 100
    few = draw_rows(batch, encoder.text, encoder.cutter, rows=1, samples=1)
    assert few.height <= one.height
    assert draw_images(ImageBatch(torch.rand(5, 3, 16, 24))).size[0] > 300
