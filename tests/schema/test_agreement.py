"""The schema repeats a few facts of rooms it must not import; here they are held together."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lit_eve.schema import datasets, training
from lit_eve.schema.patch_embeddings import (
    EvePatchEmbedding,
    EveV2PatchEmbedding,
    LinearPatchEmbedding,
    num_tokens,
)
from lit_eve.schema.schedules import Curve
from lit_eve_callbacks.schedules import CURVES
from lit_eve_data.batches import ImageLayout
from lit_eve_data.builtin import scenes


def test_scenes_have_the_options_and_defaults_that_draw_them() -> None:
    options = datasets.Scenes(type="scenes")
    names = {field.name for field in fields(scenes.ScenesOptions)}
    assert names == set(datasets.Scenes.model_fields) - {"type"}
    for field in fields(scenes.ScenesOptions):
        made = field.default_factory
        default = field.default if made is MISSING else made()
        assert getattr(options, field.name) == default, field.name


def test_scenes_have_the_kinds_inks_and_backgrounds_that_are_drawn() -> None:
    assert scenes.KINDS == datasets.SCENE_KINDS
    assert set(get_args(datasets.Ink)) == set(scenes.INKS)
    assert get_args(datasets.Background) == scenes.BACKGROUNDS


@given(st.sampled_from(range(16, 161, 16)), st.integers(1, 6), st.integers(8, 160))
def test_digits_that_do_not_fit_are_found_before_anything_is_drawn(
    side: int, fewest: int, glyph: int
) -> None:
    options = datasets.Scenes(type="scenes", sides=(side, 160), digits=(fewest, 6), glyphs=(glyph,))
    try:
        scenes.ScenesOptions(sides=(side, 160), digits=(fewest, 6), glyphs=(glyph,))
    except ValueError:
        assert list(options.findings())
    else:
        assert not list(options.findings())


def test_schedules_are_those_that_there_are() -> None:
    assert set(get_args(training.RateCurve)) == set(CURVES)
    assert set(get_args(Curve)) == set(CURVES) - {"constant"}


@pytest.mark.parametrize(
    ("options", "layout"),
    [
        (
            EvePatchEmbedding(type="eve", patch=8, pool=2, width=32, heads=4),
            ImageLayout(8, 2, cls=True, row_end=True),
        ),
        (
            EveV2PatchEmbedding(type="eve_v2", patch=16, pool=2, width=32),
            ImageLayout(16, 2, cls=True, row_end=True),
        ),
        (
            LinearPatchEmbedding(type="linear", patch=30),
            ImageLayout(30, 1, cls=False, row_end=True),
        ),
    ],
)
def test_tokens_of_a_picture_are_counted_as_they_are_made(
    options: EvePatchEmbedding, layout: ImageLayout
) -> None:
    assert options.cell == layout.cell
    assert num_tokens(options, 3, 5) == layout.num_tokens(3, 5)
