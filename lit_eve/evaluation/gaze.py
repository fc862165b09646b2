"""What a model without a vision encoder looks at, as heat over held-out pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from lit_eve.models.encoder_free import EncoderFreeVLM
from lit_eve.models.patch_embedding import EvePatchEmbedding
from lit_eve.models.teacher import Teacher
from lit_eve.tasks.alignment import AlignmentTask
from lit_eve.tracking.heat import heat
from lit_eve.tracking.logger import SpoolLogger
from lit_eve_data.batches import PackedBatch, PackedImages
from lit_eve_data.disk.records import Sample
from lit_eve_data.packing.lengths import SampleEncoder
from lit_eve_data.packing.rows import Item, collate

Grids = Sequence[tuple[int, int]]
Heat = NDArray[np.float32]
MOST = 4.0
"""Times an equal share that are drawn brightest."""


@dataclass
class ShowGaze(Callback):
    """At every validation, over a few held-out pictures.

    `val/attention`: how much of `<CLS>` comes from each window, 1 being an equal share, up to
    `MOST` times it. `val/similarity`, where a teacher is aligned with: the cosine between its
    features and the decoder's, from 0 to 1. Not for sharded models: parts are read one by one.
    """

    encoder: SampleEncoder
    samples: Sequence[Sample]
    """Each with an image; the first one is shown."""
    logger: SpoolLogger

    @torch.no_grad()
    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw, on the first rank."""
        model = pl_module.model
        if trainer.sanity_checking or not trainer.is_global_zero or not self.samples:
            return
        assert isinstance(model, EncoderFreeVLM)
        batch = self._batch().to(pl_module.device)
        firsts = np.cumsum([0, *(len(sample.images) for sample in self.samples)])[:-1]
        if isinstance(model.patch_embedding, EvePatchEmbedding):
            shares = _split(class_shares(model.patch_embedding, batch.images), batch.images.grids)
            self._show("val/attention", trainer, [shares[n] for n in firsts], MOST, "most {:.1f}x")
        teacher = pl_module.aligning.teacher if isinstance(pl_module, AlignmentTask) else None
        if teacher is not None:  # streamed features are those of training's pictures
            cosines, grids = similarity(model, batch, teacher)
            found = _split(cosines, grids)
            self._show("val/similarity", trainer, [found[n] for n in firsts], 1.0, "mean {:.2f}")

    def _batch(self) -> PackedBatch:
        """Every sample in a row of its own."""
        cutter, items = self.encoder.cutter, []
        for sample in self.samples:
            visual = [cutter.num_tokens(image.height, image.width) for image in sample.images]
            encoded = self.encoder.text.encode(sample.turns, visual)
            items.append(Item(encoded, [image.pixels() for image in sample.images], sample.kind))
        longest = max(len(item.encoded) for item in items)
        return collate([[item] for item in items], longest, self.encoder.text.pad_id, cutter)

    def _show(
        self, key: str, trainer: Trainer, maps: Sequence[Heat], highest: float, words: str
    ) -> None:
        pictures = [Image.fromarray(np.asarray(s.images[0].pixels())) for s in self.samples]
        over = [heat(p, m, 0.0, highest) for p, m in zip(pictures, maps, strict=True)]
        told = [words.format(m.max() if "most" in words else m.mean()) for m in maps]
        captions = [sample.kind for sample in self.samples] + told
        count = len(self.samples)
        self.logger.log_images(key, trainer.global_step, [*pictures, *over], captions, count)


def class_shares(embedding: EvePatchEmbedding, images: PackedImages) -> Tensor:
    """How much of `<CLS>` comes from each window, as multiples of an equal share: (M,)."""
    sizes = torch.tensor([rows * columns for rows, columns in images.grids])  # (I,)
    equal = sizes.to(images.window_image.device)[images.window_image]  # (M,)
    return embedding.class_attention(images) * equal


def similarity(model: EncoderFreeVLM, batch: PackedBatch, teacher: Teacher) -> tuple[Tensor, Grids]:
    """Cosine between the decoder's features and the teacher's, cell by cell.

    Returns:
        (F,) cells row-major, images in order, and (rows, columns) of every image.
    """
    assert model.patch_alignment is not None
    output, seen = model(batch, layers=model.patch_alignment.layers), teacher(batch.images)
    features = model.patch_alignment(output.layer_states, batch, seen.grids)  # (F, C)
    return F.cosine_similarity(features.float(), seen.features.float(), dim=1), seen.grids


def _split(values: Tensor, grids: Grids) -> list[Heat]:
    """Values of all images by image, (rows, columns) each."""
    sizes = [rows * columns for rows, columns in grids]
    parts = torch.split(values.float().cpu(), sizes)
    return [part.view(grid).numpy() for part, grid in zip(parts, grids, strict=True)]
