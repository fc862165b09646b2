"""Originals and what a tokenizer makes of them, as one grid of pictures with its step."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer


class Reconstructions(Callback):
    """Shows the first held-out images at every validation: one column an image, one row a kind.

    The task says what there is to show by `pictures(pixels)`: names to (B, 3, H, W) in [0, 1]. The
    grid goes to loggers that take pictures (`log_images`). Random numbers drawn for it do not
    change the run.

    Args:
        images: how many.
        key: where the grid is logged.

    Raises:
        ValueError: if there is nothing to show.
    """

    def __init__(self, images: int = 8, key: str = "val/reconstructions") -> None:
        if images < 1:
            raise ValueError(f"{images} pictures are none: give 1 or more, or take this out.")
        self.images, self.key = images, key

    @torch.no_grad()
    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draw the first batch, which is the same in every validation."""
        if batch_idx > 0 or dataloader_idx > 0 or trainer.sanity_checking:
            return
        takers = [logger for logger in trainer.loggers if hasattr(logger, "log_images")]
        if not takers or not trainer.is_global_zero:
            return
        device = pl_module.device
        originals = batch.pixels[: self.images]
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            rows = pl_module.pictures(originals)  # type: ignore[operator]
        pictures, captions = [], []
        for name, row in rows.items():
            pictures += [image.float().permute(1, 2, 0).cpu().numpy() for image in row]
            captions += [name] * len(row)
        for logger in takers:
            logger.log_images(
                self.key, trainer.global_step, pictures, captions, columns=len(originals)
            )
