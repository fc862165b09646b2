"""A small CLIP over packed batches; what it leaves is a teacher."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from lit_eve.assemble import foundations
from lit_eve.models.contrastive import CELL, LAYOUT, ContrastiveModel, contrastive_loss, found
from lit_eve.models.teacher import Normalisation, Teacher
from lit_eve.schema.foundations import CaptionHalf, Contrastive, PictureHalf
from lit_eve.schema.images import Images
from lit_eve.schema.language_models import BytesText
from lit_eve_data.batches import ImageLayout
from lit_eve_data.encoding.vocabulary import bytes_text
from tests.models.packed import Sample, pack, pack_images

OPTIONS = Contrastive(
    type="contrastive",
    picture=PictureHalf(width=16, depth=2, heads=2, patch=8, side=32),
    caption=CaptionHalf(width=16, depth=1, heads=2, longest=4),
    width=8,
    text=BytesText(type="bytes"),
    images=Images(mean=(0.7, 0.7, 0.7), std=(0.3, 0.3, 0.3)),
)


@pytest.fixture(scope="module")
def clip() -> ContrastiveModel:
    torch.manual_seed(0)
    return foundations.contrastive(OPTIONS, bytes_text())


def picture(rows: int, columns: int) -> torch.Tensor:
    return torch.randn(3, rows * CELL, columns * CELL)


def test_captions_are_the_supervised_tokens_of_each_sample(clip: ContrastiveModel) -> None:
    rows = [
        [Sample([picture(1, 1), [7, 8, 9]], 2), Sample([picture(1, 2), [3, 4, 5, 6, 1]], 5)],
        [Sample([[2], picture(2, 1), [5]], 1)],
    ]
    ids = clip.captions(pack(rows, LAYOUT, 16))
    pad = bytes_text().pad_id
    assert ids.tolist() == [[8, 9, pad, pad], [3, 4, 5, 6], [5, pad, pad, pad]]


def test_the_loss_without_repetitions_is_clip_s() -> None:
    similarity = torch.randn(3, 3)
    right = torch.arange(3)
    wanted = (F.cross_entropy(similarity, right) + F.cross_entropy(similarity.T, right)) / 2
    ids = torch.tensor([[1, 0], [2, 0], [3, 0]])
    torch.testing.assert_close(contrastive_loss(similarity, ids), wanted)


def test_captions_that_say_the_same_are_both_right() -> None:
    ids = torch.tensor([[1, 0], [1, 0], [3, 0]])
    sure = torch.tensor([[9.0, 9, -9], [9, 9, -9], [-9, -9, 9]])
    # Two of them share the probability: log 2 each, the third is certain.
    assert contrastive_loss(sure, ids).item() == pytest.approx(2 * torch.log(torch.tensor(2.0)) / 3)
    swapped = sure[[1, 0, 2]]
    assert int(found(swapped, ids)) == 3
    assert int(found(-sure, ids)) == 0


def test_a_sample_without_a_picture_is_refused(clip: ContrastiveModel) -> None:
    with pytest.raises(ValueError, match="Train on a dataset of captions of single images"):
        clip(pack([[Sample([[1, 2, 3]], 1)]], LAYOUT, 8))


def test_what_is_written_teaches_what_was_trained(clip: ContrastiveModel, tmp_path: Path) -> None:
    text = bytes_text()
    foundations.write_clip(clip, OPTIONS, text, tmp_path)
    layout = ImageLayout(8, 1, cls=False, row_end=False)
    own = Normalisation(OPTIONS.images.mean, OPTIONS.images.std)
    teacher = Teacher.pretrained(str(tmp_path), -2, layout, own)
    images = pack_images([picture(4, 4), picture(2, 4)], layout)
    seen = teacher(images)
    pixels = clip.pixels(images)
    states = clip.clip.vision_model(pixel_values=pixels, output_hidden_states=True).hidden_states
    assert seen.grids == ((4, 4), (2, 4))
    square = states[-2][0, 1:].detach()
    torch.testing.assert_close(seen.features[:16], square, atol=1e-5, rtol=1e-4)
