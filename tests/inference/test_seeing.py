"""A teacher's features kept beside the pictures are what it sees in them while training."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import ViTConfig, ViTModel

from lit_eve.inference.seeing import look
from lit_eve.losses.alignment import alignment_loss
from lit_eve.models.teacher import Normalisation, Teacher
from lit_eve.tasks.alignment import AlignmentTask
from lit_eve_data.batches import ImageLayout, PackedBatch
from lit_eve_data.disk.features import StoredTeacher
from lit_eve_data.disk.reading import RecordStore
from lit_eve_data.disk.records import Sample, StoredImage, encode
from lit_eve_data.encoding.images import ImageCutter, Native
from lit_eve_data.encoding.vocabulary import bytes_text
from lit_eve_data.loading.loader import PackedLoader
from lit_eve_data.packing.lengths import SampleEncoder
from lit_eve_data.packing.plan import PackingPlan
from lit_eve_data.preparing.writing import WritingOptions, write_dataset

LAYOUT = ImageLayout(patch=4, pool=2, cls=True, row_end=True)
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)
GIVEN = Normalisation(MEAN, STD)
SIZES = ((32, 24), (16, 32), (32, 32))  # the longer side is the teacher's: nothing is scaled


class Pictures:
    """Twenty samples of none to two pictures."""

    def description(self) -> dict[str, str]:
        return {"type": "pictures"}

    def splits(self) -> dict[str, range]:
        return {"train": range(18), "val": range(18, 20)}

    @property
    def maker(self) -> Pictures:
        return self

    def name(self, entry: int) -> str:
        return str(entry)

    def __call__(self, entry: int) -> bytes:
        random = np.random.default_rng(entry)
        images = [
            StoredImage.raw(random.integers(0, 256, (*SIZES[(entry + n) % 3], 3), np.uint8))
            for n in range(entry % 3)
        ]
        turns = [
            {"role": "user", "content": "<image>" * len(images) + "?"},
            {"role": "assistant", "content": str(entry)},
        ]
        return encode(Sample(str(entry), "kind/a", turns, images))


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small vision transformer in a folder."""
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        image_size=32,
        patch_size=8,
    )
    folder = tmp_path_factory.mktemp("teacher")
    ViTModel(config, add_pooling_layer=False).save_pretrained(folder)
    about = {"image_processor_type": "ViTImageProcessor", "image_mean": [0.5] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps({**about, "image_std": [0.3] * 3}))
    return str(folder)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory, teacher: str) -> Path:
    folder = tmp_path_factory.mktemp("dataset")
    write_dataset(Pictures(), folder, WritingOptions(0))
    seen: list[int] = []
    look(teacher, -2, folder, lambda done, total: seen.append(done))
    assert seen[-1] == 20
    return folder


@pytest.fixture(scope="module")
def batch(dataset: Path, teacher: str) -> PackedBatch:
    view = RecordStore(dataset).view
    encoder = SampleEncoder(bytes_text(), ImageCutter(LAYOUT, Native(), MEAN, STD))
    plan = PackingPlan([encoder.lengths("a", view, 1.0)], 128, 10, 0)
    stored = StoredTeacher(view, teacher, -2)
    return next(iter(PackedLoader(plan, [view], encoder, steps=1, teachers=[stored])))


def test_streamed_features_are_those_of_the_teacher_at_work(
    batch: PackedBatch, teacher: str
) -> None:
    at_work = Teacher.pretrained(teacher, -2, LAYOUT, GIVEN)(batch.images)
    assert batch.seen is not None
    assert batch.seen.grids == at_work.grids
    assert batch.images.num_images >= 4
    assert torch.allclose(batch.seen.features.float(), at_work.features, atol=4e-3)
    loss = alignment_loss(at_work.features, batch.seen.features.float(), at_work.grids, "cosine")
    assert float(loss.mean()) < 1e-5


def test_the_task_takes_what_the_batch_brings(batch: PackedBatch) -> None:
    task = AlignmentTask.__new__(AlignmentTask)
    task.__dict__["aligning"] = type("Aligning", (), {"teacher": None})()
    taken = task._features(batch, torch.nn.Linear(4, 24))
    assert batch.seen is not None
    assert taken.features.dtype == torch.float32
    assert torch.equal(taken.features, batch.seen.features.float())
    assert taken.grids == batch.seen.grids


def test_features_are_computed_once(dataset: Path, teacher: str) -> None:
    seen: list[int] = []
    look(teacher, -2, dataset, lambda done, total: seen.append(done))
    assert seen == []


def test_features_that_are_not_there_say_how_to_compute_them(dataset: Path, teacher: str) -> None:
    view = RecordStore(dataset).view
    with pytest.raises(ValueError, match=r"holds no features .*layer -1.*--teacher-layer -1"):
        StoredTeacher(view, teacher, -1)
    with pytest.raises(ValueError, match="lit-eve prepare"):
        StoredTeacher(view, "hf:somebody/else", -2)
