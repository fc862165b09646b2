"""An image tokenizer behind Transformers' interface: what `AutoModel` gives.

Shapes: B images, H/W pixels, h/w cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils.generic import ModelOutput

from lit_eve.hub.configuration import ImageTokenizerConfig


@dataclass
class Rebuilt(ModelOutput):
    """Images gone through the bottleneck."""

    codes: Tensor | None = None
    """int64; None of a continuous tokenizer."""
    reconstruction: Tensor | None = None
    """(B, 3, H, W) in [0, 1]."""


class LitEveImageTokenizer(PreTrainedModel):  # type: ignore[no-untyped-call]
    """What `AutoModel` gives for an exported image tokenizer.

    Args:
        config: of the exported folder.
    """

    config_class = ImageTokenizerConfig
    base_model_prefix = "tokenizer"
    main_input_name = "pixel_values"
    input_modalities = ["image"]  # noqa: RUF012  # as its base class

    def __init__(self, config: ImageTokenizerConfig) -> None:
        super().__init__(config)
        from lit_eve.hub.building import build_image_tokenizer  # imports transformers again

        self.tokenizer = build_image_tokenizer(config)
        self.post_init()  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Constants that no file holds: reading a model leaves them empty."""
        if module is not self.tokenizer.quantizer:
            return
        from lit_eve.hub.building import fresh_quantizer

        kept, config = module.state_dict(), cast(ImageTokenizerConfig, self.config)
        for name, buffer in fresh_quantizer(config).named_buffers():
            if name not in kept:
                module.get_buffer(name).copy_(buffer)

    def encode(self, pixel_values: Tensor) -> Tensor:
        """Codes of images, int64, (B, h, w) for most tokenizers.

        Args:
            pixel_values: (B, 3, H, W) in [0, 1].

        Raises:
            ValueError: if the tokenizer is continuous or a side is no whole number of cells.
        """
        return self.tokenizer.encode(pixel_values)

    def decode(self, codes: Tensor, grid: tuple[int, int] | None = None) -> Tensor:
        """Images of codes, (B, 3, H, W) in [0, 1].

        Args:
            codes: as `encode` gives them.
            grid: (h, w), for multi-scale codes, whose shape does not say it.
        """
        return self.tokenizer.decode(codes, grid)

    @torch.no_grad()
    def forward(self, pixel_values: Tensor, return_dict: bool | None = None) -> Any:
        """Images through the bottleneck and back.

        Args:
            pixel_values: (B, 3, H, W) in [0, 1].
            return_dict: `Rebuilt`, or its values as a tuple if False.
        """
        codes = None
        if self.tokenizer.quantizer.num_codes is not None:
            codes = self.encode(pixel_values)
        made = Rebuilt(codes=codes, reconstruction=self.tokenizer.reconstruct(pixel_values))
        return made.to_tuple() if return_dict is False else made
