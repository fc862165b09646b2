"""What a validation draws of a model's looking, on models that fit in a test."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from lit_eve import assemble
from lit_eve.evaluation.gaze import ShowGaze, class_shares, similarity
from lit_eve.models.encoder_free import EncoderFreeVLM
from lit_eve.models.patch_embedding import EvePatchEmbedding
from lit_eve.models.teacher import TeacherFeatures
from lit_eve.schema import VisionLanguageExperiment, load
from lit_eve.tasks.alignment import AlignmentTask
from lit_eve.tracking.logger import SpoolLogger
from lit_eve.tracking.spool import EVENTS_FILE, read_events
from lit_eve_data.batches import ImageLayout
from lit_eve_data.disk.records import IMAGE, Sample, StoredImage
from lit_eve_data.encoding.vocabulary import bytes_text
from lit_eve_data.packing.lengths import SampleEncoder
from tests.models.packed import pack_images

FILE = """\
name: gazing
model:
  type: encoder_free
  language_model: {type: llama, width: 16, depth: 2, heads: 2}
  text: {type: bytes}
  patch_embedding: {type: eve, patch: 4, pool: 2, width: 16, heads: 2}
  patch_alignment: {width: 16, heads: 2, every: 1}
  teacher: {type: random, width: 8, depth: 1, heads: 2, patch: 8, image: 16}
loss: {alignment: {weight: 1.0}}
datasets: {scenes: {type: scenes}}
stages:
  learn: {task: alignment, batch: 8, data: {scenes: 1}, for: 4 steps,
          train: {patch_embedding: 1, patch_alignment: 1}}
"""


@pytest.fixture
def experiment(tmp_path: Path) -> VisionLanguageExperiment:
    file = tmp_path / "gazing.yaml"
    file.write_text(FILE)
    read = load(file)
    assert isinstance(read, VisionLanguageExperiment)
    return read


def samples() -> list[Sample]:
    pictures = [np.full((16, 24, 3), 90, np.uint8), np.full((24, 8, 3), 160, np.uint8)]
    turns: Any = [
        {"role": "user", "content": f"{IMAGE}\nRead."},
        {"role": "assistant", "content": "7"},
    ]
    return [Sample("one", "question/read", turns, [StoredImage.raw(p)]) for p in pictures]


def model_of(experiment: VisionLanguageExperiment) -> EncoderFreeVLM:
    torch.manual_seed(0)
    model = assemble.vision_language(experiment.model, bytes_text().num_tokens)
    assert isinstance(model, EncoderFreeVLM)
    return model.eval()


def test_shares_of_cls_are_those_of_its_own_softmax() -> None:
    torch.manual_seed(0)
    layer = EvePatchEmbedding(2, 2, 8, 6, heads=2).double()
    layout = ImageLayout(patch=2, pool=2, cls=True, row_end=True)
    pictures = [torch.randn(3, 8, 12).double(), torch.randn(3, 4, 8).double()]
    shares = torch.split(class_shares(layer, pack_images(pictures, layout)), [6, 2])
    found, attention = 0, layer.image_attention
    key_weight = attention.key_value.weight[:8].view(2, 4, 8)
    query = attention.query(attention.query_norm(layer.class_embedding)).view(2, 4)
    for picture, share in zip(pictures, shares, strict=True):
        windows = layer._windows(pack_images([picture], layout))
        keys = attention.key_value_norm(windows)
        plain = torch.zeros(len(windows), dtype=torch.float64)
        for head in range(2):
            scores = (keys @ key_weight[head].T) @ query[head] * 8**-0.5
            plain += scores.softmax(0) / 2
        assert torch.allclose(share, plain * len(windows), atol=1e-12)
        found += len(windows)
    assert found == 8


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_similarity_to_the_models_own_features_is_one(
    experiment: VisionLanguageExperiment, sign: float
) -> None:
    model, encoder = model_of(experiment), encoder_of(experiment)
    batch = ShowGaze(encoder, samples(), None)._batch()  # type: ignore[arg-type]
    alignment = model.patch_alignment
    assert alignment is not None
    grids = ((2, 3), (1, 1))
    output = model(batch, layers=alignment.layers)
    features = sign * alignment(output.layer_states, batch, grids)
    cosines, found = similarity(model, batch, lambda _: TeacherFeatures(features, grids))  # type: ignore[arg-type]
    assert found == grids
    assert torch.allclose(cosines, torch.full((7,), sign))


def encoder_of(experiment: VisionLanguageExperiment) -> SampleEncoder:
    text = bytes_text()
    layout = assemble.on_meta(experiment.model, text.num_tokens).layout
    return SampleEncoder(text, assemble.cutter(experiment.model.images, layout))


def test_an_aligned_stage_shows_both_at_every_validation(
    experiment: VisionLanguageExperiment, tmp_path: Path
) -> None:
    logger = SpoolLogger(tmp_path / "run" / "learn")
    task = assemble.task(experiment, experiment.trained["learn"], model_of(experiment), steps=4)
    assert isinstance(task, AlignmentTask)
    trainer: Any = SimpleNamespace(sanity_checking=False, is_global_zero=True, global_step=7)
    callback = ShowGaze(encoder_of(experiment), samples(), logger)
    callback.on_validation_epoch_end(trainer, task)
    events = [e for e, _ in read_events(logger.spool.directory / EVENTS_FILE)]
    shown = {(e["key"], e["s"]) for e in events if e["k"] == "image"}
    assert shown == {("val/attention", 7), ("val/similarity", 7)}
