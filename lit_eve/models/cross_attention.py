"""Gated cross-attention between a decoder's layers: text looks at its image, and only at that one.

Shapes: R rows, T slots a row, I images, Q features an image, D their width, E width of the decoder,
d width of a head.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_eve.models.connectors.resamplers import split_heads
from lit_eve.models.language_model import LanguageModel


@dataclass(frozen=True)
class Looking:
    """Which slots look at which image."""

    features: Tensor
    """(I, Q, D)."""
    slots: Tensor
    """(I, T) int64: `row * T + slot` of what may look at each image, the image's own slot first."""
    looks: Tensor
    """(I, T) bool: whether it does: until the next image or the end of the sample."""
    latest: Tensor
    """(R,) int64: the image that the end of every row looks at, -1 for none."""
    length: int
    """T."""

    @classmethod
    def of(cls, features: Tensor, slots: Tensor, position_ids: Tensor) -> Looking:
        """Every slot looks at the image last shown in its own sample, its placeholder included.

        Args:
            features: (I, Q, D), images in the order of `slots`.
            slots: `row * T + slot` of every image's placeholder, (I,) int64, ascending.
            position_ids: (R, T) int64, 0 where a sample starts.
        """
        rows, length = position_ids.shape
        flat = torch.arange(rows * length, device=slots.device)  # (R*T,)
        shown = torch.zeros_like(flat).index_fill(0, slots, 1).cumsum(0)  # images up to each slot
        start = flat - position_ids.flatten()
        before = (shown - torch.zeros_like(flat).index_fill(0, slots, 1))[start]
        image = torch.where(shown > before, shown - 1, -1)  # (R*T,)
        reach = slots[:, None] + torch.arange(length, device=slots.device)  # (I, T)
        inside = reach < rows * length
        reach = reach.clamp(max=rows * length - 1)
        own = torch.arange(len(slots), device=slots.device)[:, None]
        latest = image.view(rows, length)[:, -1]
        return cls(features, reach, inside & (image[reach] == own), latest, length)


class GatedCrossAttention(nn.Module):
    """A layer that looks at images, in front of a layer of the decoder; at first it does nothing.

    Args:
        width: E.
        features: D.
        heads: of attention.

    Source:
        Alayrac et al. 2022, arXiv:2204.14198, section 3.2 and figure 4: attention and a
        feed-forward of four times the width, each through tanh of a gate that starts at 0.
    """

    def __init__(self, width: int, features: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.feature_norm = nn.LayerNorm(width), nn.LayerNorm(features)
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(features, 2 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.attention_gate = nn.Parameter(torch.zeros(1))
        self.ffn = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 4 * width, bias=False),
            nn.GELU(),
            nn.Linear(4 * width, width, bias=False),
        )
        self.ffn_gate = nn.Parameter(torch.zeros(1))

    def forward(self, tokens: Tensor, looking: Looking) -> Tensor:
        """(R, T, E) to the same; tokens that no image stands before are only fed forward.

        Args:
            tokens: whole rows, or one new token of each.
            looking: of the whole rows.
        """
        query = self.query(self.norm(tokens))  # (R, T, E)
        pairs = self.key_value(self.feature_norm(looking.features))  # (I, Q, 2E)
        key, value = (split_heads(part, self.heads) for part in pairs.chunk(2, -1))
        if tokens.shape[1] == looking.length:
            seen = self._rows(query, key, value, looking)
        else:
            seen = self._newest(query, key, value, looking.latest)
        tokens = tokens + self.attention_gate.tanh() * self.out(seen)
        result: Tensor = tokens + self.ffn_gate.tanh() * self.ffn(tokens)
        return result

    def flops(self, tokens: int, images: int, features: int) -> int:
        """Forward arithmetic in a sample; see `CrossAttention.flops`."""
        width, inner = self.query.out_features, self.key_value.in_features
        of_tokens = tokens * 10 * width**2  # query, out, and a feed-forward of four times the width
        of_features = images * features * 2 * inner * width
        attention = 2 * tokens * features * width if images else 0
        return 2 * (of_tokens + of_features + attention)

    def _rows(self, query: Tensor, key: Tensor, value: Tensor, looking: Looking) -> Tensor:
        """Every image is looked at by what follows it: no mask, and nothing looks at two."""
        flat = query.flatten(0, 1)  # (R*T, E)
        grouped = split_heads(flat[looking.slots], self.heads)  # (I, heads, T, d)
        seen = F.scaled_dot_product_attention(grouped, key, value)
        seen = seen.transpose(1, 2).flatten(2) * looking.looks[:, :, None]  # (I, T, E)
        joined = torch.zeros_like(flat, dtype=seen.dtype)
        joined = joined.index_add(0, looking.slots.flatten(), seen.flatten(0, 1))
        return joined.view_as(query)

    def _newest(self, query: Tensor, key: Tensor, value: Tensor, latest: Tensor) -> Tensor:
        """New tokens look at their row's latest image."""
        if not len(key):
            return torch.zeros_like(query)
        image = latest.clamp(min=0)  # (R,)
        seen = F.scaled_dot_product_attention(
            split_heads(query, self.heads), key[image], value[image]
        )
        return seen.transpose(1, 2).flatten(2) * (latest >= 0)[:, None, None]


class CrossAttention(nn.Module):
    """Gated layers in front of every `every`-th layer of a decoder, beginning with the first.

    It holds the token that stands for an image in the text, too.

    Args:
        decoder: left as it is but for a hook in front of those layers.
        features: D.
        heads: of attention.
        every: distance between two of them.

    Raises:
        ValueError: if the decoder has no list of layers, or none would be looked from.
    """

    def __init__(self, decoder: LanguageModel, features: int, heads: int, every: int) -> None:
        layers = getattr(decoder.model.get_decoder(), "layers", None)  # type: ignore[no-untyped-call]
        if not isinstance(layers, nn.ModuleList):
            raise ValueError(
                f"{decoder.model.config.model_type} has no list of `layers` to look at images "
                "between. Choose a Llama, Qwen, Mistral or the like."
            )
        chosen = range(0, len(layers), every)
        super().__init__()
        self.layers = nn.ModuleDict(
            {str(n): GatedCrossAttention(decoder.width, features, heads) for n in chosen}
        )
        self.placeholder = nn.Parameter(torch.empty(decoder.width))
        self.reset_parameters()
        self._looking: Looking | None = None
        for number in chosen:
            hook = self._in_front_of(str(number))
            layers[number].register_forward_pre_hook(hook, with_kwargs=True)

    def reset_parameters(self) -> None:
        """Draw the placeholder, as large as a token of text; the layers have their own."""
        nn.init.normal_(self.placeholder, std=0.02)

    def flops(self, tokens: int, images: int, features: int) -> int:
        """Forward arithmetic of all its layers in a sample, 2 per multiply-add.

        Args:
            tokens: of the sample; all are counted as if they looked at an image.
            images: of the sample.
            features: Q.
        """
        layers = (cast(GatedCrossAttention, layer) for layer in self.layers.values())
        return sum(layer.flops(tokens, images, features) for layer in layers)

    @contextmanager
    def looking(self, looking: Looking) -> Iterator[None]:
        """Inside, the decoder's layers look at these images."""
        self._looking = looking
        try:
            yield
        finally:
            self._looking = None

    def _in_front_of(self, number: str) -> Any:
        def look(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if self._looking is None:
                return None
            if args:
                return (self.layers[number](args[0], self._looking), *args[1:]), kwargs
            tokens = self.layers[number](kwargs["hidden_states"], self._looking)
            return args, kwargs | {"hidden_states": tokens}

        return look
