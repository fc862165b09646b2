"""The project's own models, tiny, with data that splits over ranks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.optim import SGD, AdamW

from lit_eve.models.encoder_free import EncoderFreeVLM
from lit_eve.models.language_model import LanguageModel
from lit_eve.models.patch_embedding import EvePatchEmbedding
from lit_eve.models.tokenizers.codebook import EmaCodebook, Liveliness
from lit_eve.models.tokenizers.vector import VectorQuantizer
from lit_eve_data.batches import IGNORE, ImageLayout, PackedBatch
from tests.models.packed import Sample, pack
from tests.tiny_training import Loader

LAYOUT = ImageLayout(patch=2, pool=2, cls=True, row_end=True)
WIDTH, VOCABULARY, SLOTS = 16, 30, 24


class EveTask(LightningModule):
    """The encoder-free model on packed rows, with the loss of the joined batch."""

    tied = False

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(11)
        language = LanguageModel.llama(
            VOCABULARY, WIDTH, depth=2, heads=2, ffn=32, tie_embeddings=self.tied
        )
        patches = EvePatchEmbedding(LAYOUT.patch, LAYOUT.pool, width=8, out_width=WIDTH, heads=2)
        self.model = EncoderFreeVLM(language, patches)

    def training_step(self, batch: PackedBatch, batch_idx: int) -> dict[str, Tensor]:
        total, _ = self.model.next_token_loss(batch)
        return {"loss": total / batch.labels_share}

    def validation_step(self, batch: PackedBatch, batch_idx: int) -> None:
        self.log("val/loss", self.model.next_token_loss(batch).mean(), sync_dist=True)

    def configure_optimizers(self) -> Any:
        return AdamW(self.parameters(), lr=1e-2, weight_decay=0.1)


class TiedEveTask(EveTask):
    tied = True


class PlainEveTask(EveTask):
    """With an optimizer that does not blow up rounding: AdamW divides by tiny gradients."""

    def configure_optimizers(self) -> Any:
        return SGD(self.parameters(), lr=0.3)


def row(index: int, images: bool) -> list[Sample]:
    """Two samples; the first one has a picture of its own size, unless it may have none."""
    generator = torch.Generator().manual_seed(index)

    def words(number: int) -> list[int]:
        return cast(list[int], torch.randint(VOCABULARY, (number,), generator=generator).tolist())

    height, width = (4 * int(side) for side in torch.randint(1, 3, (2,), generator=generator))
    picture = torch.randn(3, height, width, generator=generator)
    first: list[Any] = [words(2), picture, words(4)] if images else [words(7)]
    return [Sample(first, supervised=2 + index % 3), Sample([words(3 + index % 4)], supervised=2)]


class PackedRows(Loader):
    """Every row has a picture."""

    def with_image(self, index: int) -> bool:
        return True

    def collate(self, own: list[int], joined: list[int]) -> PackedBatch:
        batch = pack([row(index, self.with_image(index)) for index in own], LAYOUT, SLOTS)
        every = pack([row(index, self.with_image(index)) for index in joined], LAYOUT, SLOTS)
        supervised = int(((every.labels != IGNORE) & (every.position_ids > 0)).sum())
        return replace(batch, labels_share=supervised * len(own) / len(joined))


class TextOnOneRank(PackedRows):
    """The second row of every pair is text only; with two ranks, all that rank one sees."""

    def collate(self, own: list[int], joined: list[int]) -> PackedBatch:
        self._text = set(joined[1::2])
        return super().collate(own, joined)

    def with_image(self, index: int) -> bool:
        return index not in self._text


class QuantizerTask(LightningModule):
    """Encoder, codebook with moving averages, decoder."""

    liveliness = Liveliness("random", 0.9)

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(12)
        codebook = EmaCodebook(6, 4, liveliness=self.liveliness)
        self.model = nn.ModuleDict(
            {
                "encoder": nn.Conv2d(3, 4, 2, 2),
                "quantizer": VectorQuantizer(codebook),
                "decoder": nn.ConvTranspose2d(4, 3, 2, 2),
            }
        )

    def training_step(self, pixels: Tensor, batch_idx: int) -> Tensor:
        quantized = self.model["quantizer"](self.model["encoder"](pixels))
        error = (self.model["decoder"](quantized.latent) - pixels).square().mean()
        return cast(Tensor, error + sum(quantized.losses.values()))

    def validation_step(self, pixels: Tensor, batch_idx: int) -> None:
        self.model["quantizer"](self.model["encoder"](pixels))

    def configure_optimizers(self) -> Any:
        return AdamW(self.parameters(), lr=1e-2)


class AveragedTask(QuantizerTask):
    """Remembers what its encoder said in the last validation, which sees averaged weights."""

    said: Tensor

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__(dropout)
        self.register_buffer("said", torch.zeros(1))
        self.heard = 0.0

    def validation_step(self, pixels: Tensor, batch_idx: int) -> None:
        self.heard = float(self.model["encoder"](torch.ones(1, 3, 8, 8)).sum())

    def on_train_end(self) -> None:
        self.said.fill_(self.heard)


class LivelyQuantizerTask(QuantizerTask):
    """Its codes start at, and are revived by, tokens drawn at random."""

    liveliness = Liveliness("kmeans", 0.9, revive_below=0.5)


class Pictures(Loader):
    def collate(self, own: list[int], joined: list[int]) -> Tensor:
        return torch.stack(
            [
                torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(index)) + index % 5
                for index in own
            ]
        )
