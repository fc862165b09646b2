"""Baselines: a language model that sees through a vision encoder and a connector.

Shapes: I images, Q tokens an image, E width of the decoder, V visual tokens, D of the features.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from lit_eve.models.connectors.connector import Connector
from lit_eve.models.cross_attention import CrossAttention, Looking
from lit_eve.models.language_model import LanguageModel
from lit_eve.models.vision_encoder import VisionEncoder
from lit_eve.models.vision_language import Sight, VisionLanguageModel
from lit_eve_data.batches import ImageLayout, PackedImages


class EncoderVLM(VisionLanguageModel):
    """Vision encoder, connector, decoder: the tokens of an image stand among those of the text.

    Args:
        vision_encoder: pixels to features.
        connector: features to visual tokens of the decoder's width.
        language_model: the decoder.

    Raises:
        ValueError: if the connector does not give tokens of the decoder's width.
    """

    def __init__(
        self, vision_encoder: VisionEncoder, connector: Connector, language_model: LanguageModel
    ) -> None:
        super().__init__()
        if connector.out_width != language_model.width:
            raise ValueError(
                f"the connector gives {connector.out_width} channels a token and the decoder reads "
                f"{language_model.width}: make its out_width the decoder's width."
            )
        self.vision_encoder = vision_encoder
        self.connector = connector
        self.language_model = language_model

    @property
    def layout(self) -> ImageLayout:
        """Patches of the encoder's own side; a fixed number of tokens, whatever the image."""
        return _layout(self.vision_encoder, self.connector.num_tokens)

    @property
    def vision(self) -> Sequence[nn.Module]:
        """Encoder and connector."""
        return (self.vision_encoder, self.connector)

    def features(self, images: PackedImages) -> Tensor:
        """What the connector makes of every image, (I, Q, E)."""
        if not images.num_images:
            return self.language_model.head_weight.new_zeros(
                0, self.connector.num_tokens, self.connector.out_width
            )
        features: Tensor = self.connector(self.vision_encoder(images, self.layout))
        return features

    def look(self, images: PackedImages) -> Sight:
        """All tokens of all images, (V, E), one after another."""
        return Sight(self.features(images).flatten(0, 1))

    def vision_flops(self, rows: int, columns: int) -> int:
        """Forward arithmetic of encoder and connector, the same for every image."""
        side = self.vision_encoder.side
        weight = next(self.vision_encoder.parameters())
        pixels = torch.empty(1, 3, side, side, device=weight.device, dtype=weight.dtype)
        counter = FlopCounterMode(display=False)  # it cannot count the faster kernels of attention
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), counter:
            self.connector(self.vision_encoder.encode(pixels))
        return int(counter.get_total_flops())


class CrossAttentionVLM(EncoderVLM):
    """The same, but the decoder's layers look at the image: text holds one token in its place.

    Args:
        vision_encoder: pixels to features.
        connector: features to what the layers look at.
        language_model: the decoder.
        heads: of the attention to images.
        every: layers of the decoder between two that look.

    Source:
        Alayrac et al. 2022, arXiv:2204.14198, section 3. A token looks at the image last shown
        before it, and through text at the ones before.
    """

    def __init__(
        self,
        vision_encoder: VisionEncoder,
        connector: Connector,
        language_model: LanguageModel,
        heads: int,
        every: int,
    ) -> None:
        super().__init__(vision_encoder, connector, language_model)
        width = language_model.width
        self.cross_attention = CrossAttention(language_model, width, heads, every)

    @property
    def layout(self) -> ImageLayout:
        """One token an image."""
        return _layout(self.vision_encoder, 1)

    @property
    def looking(self) -> Sequence[nn.Module]:
        """The layers between the decoder's."""
        return (self.cross_attention,)

    def look(self, images: PackedImages) -> Sight:
        """The placeholder of every image, (I, E), and what there is to look at, (I, Q, E)."""
        token = self.cross_attention.placeholder.expand(images.num_images, -1)  # (I, E)
        return Sight(token, self.features(images))

    def attending(
        self, sight: Sight, slots: Tensor, position_ids: Tensor
    ) -> AbstractContextManager[None]:
        """See `VisionLanguageModel`."""
        assert sight.features is not None
        return self.cross_attention.looking(Looking.of(sight.features, slots, position_ids))

    def looking_flops(self, tokens: int, images: int) -> int:
        """See `VisionLanguageModel`."""
        return self.cross_attention.flops(tokens, images, self.connector.num_tokens)


def _layout(encoder: VisionEncoder, tokens: int) -> ImageLayout:
    return ImageLayout(encoder.patch, pool=1, cls=False, row_end=False, fixed=tokens)
