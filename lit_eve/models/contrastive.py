"""A small CLIP, trained from nothing on packed pictures and their captions.

Shapes: R rows, T slots a row, N samples of one image each, L longest caption in tokens, C channels,
S side of the square a picture is brought onto, D shared width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPConfig, CLIPModel

from lit_eve.models.resampling import fitted_grids, onto_squares, unpack
from lit_eve_data.batches import IGNORE, ImageLayout, PackedBatch, PackedImages

CELL = 8
"""Side in pixels of the pieces that pictures travel in; the CLIP has patches of its own."""
LAYOUT = ImageLayout(patch=CELL, pool=1, cls=False, row_end=False)


class ContrastiveModel(nn.Module):
    """Hugging Face's CLIP over packed batches; pictures look as they will to a `Teacher`.

    Args:
        config: sizes of both halves. `text_config` must name the caption's last token as
            `eos_token_id`, and the padding as `pad_token_id`.

    Source:
        Radford et al. 2021, arXiv:2103.00020; the model is Transformers' `CLIPModel`.
    """

    def __init__(self, config: CLIPConfig) -> None:
        super().__init__()
        self.clip = CLIPModel(config)
        seen: Any = config.vision_config
        read: Any = config.text_config
        self.side: int = seen.image_size
        self.patch: int = seen.patch_size
        self.longest: int = read.max_position_embeddings
        self.pad_id: int = read.pad_token_id

    def pixels(self, images: PackedImages) -> Tensor:
        """The batch's pictures on squares, (N, C, S, S), as `Teacher` brings them there."""
        grids = fitted_grids(images.grids, self.side // self.patch)
        sizes = [(rows * CELL, columns * CELL) for rows, columns in images.grids]
        targets = [(rows * self.patch, columns * self.patch) for rows, columns in grids]
        return onto_squares(unpack(images, LAYOUT), sizes, targets, self.side, self.patch)

    def captions(self, batch: PackedBatch) -> Tensor:
        """Supervised tokens of every sample from the left, then padding, (N, L) int64.

        A caption that is longer keeps its first L tokens.
        """
        spoken = batch.labels != IGNORE  # (R, T)
        row, segment = batch.sample_segments.unbind(1)  # (N,)
        own = batch.segment_ids[row] == segment[:, None]  # (N, T)
        said = own & spoken[row]  # (N, T)
        place = said.cumsum(1) - 1  # (N, T)
        place = torch.where(said & (place < self.longest), place, self.longest)
        ids = batch.token_ids.new_full((len(row), self.longest + 1), self.pad_id)
        return ids.scatter(1, place, batch.token_ids[row])[:, : self.longest]  # (N, L)

    def forward(self, batch: PackedBatch) -> tuple[Tensor, Tensor]:
        """Similarities of every picture with every caption, (N, N), and the captions, (N, L).

        Raises:
            ValueError: if a sample has no image or several.
        """
        if batch.images.num_images != batch.num_samples:
            raise ValueError(
                f"{batch.num_samples} samples have {batch.images.num_images} images: one caption "
                "is compared with one picture. Train on a dataset of captions of single images."
            )
        ids = self.captions(batch)
        output = self.clip(input_ids=ids, pixel_values=self.pixels(batch.images), return_dict=True)
        return output.logits_per_image, ids


def contrastive_loss(similarity: Tensor, ids: Tensor) -> Tensor:
    """Cross-entropy of finding the caption of a picture and the picture of a caption.

    Captions that say the same are all right: synthetic ones often repeat, and to tell them apart
    cannot be learnt. Without repetitions it is CLIP's loss.

    Args:
        similarity: (N, N), pictures by captions, divided by the temperature.
        ids: (N, L), tokens of the captions.

    Returns:
        Scalar, in nats.

    Source:
        Radford et al. 2021, arXiv:2103.00020, figure 3.
    """
    same = (ids[:, None] == ids[None]).all(2).to(similarity.dtype)  # (N, N)
    target = same / same.sum(1, keepdim=True)  # symmetric sets, so its rows serve both ways
    pictures = F.cross_entropy(similarity, target)
    return (pictures + F.cross_entropy(similarity.T, target)) / 2


def found(similarity: Tensor, ids: Tensor) -> Tensor:
    """Number of pictures whose most similar caption says what theirs says; scalar."""
    best = ids[similarity.argmax(1)]  # (N, L)
    return (best == ids).all(1).sum()
