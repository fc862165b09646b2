"""Arithmetic of a model, counted from its shape: works on the meta device, takes no time.

All figures are floating-point operations, 2 per multiply-add. Counted are the products with
weight matrices and those inside attention; norms, activations and sums are not: they are limited
by memory, not by arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from lit_eve.models.divide_and_conquer import Routed
from lit_eve.models.encoder_free import EncoderFreeVLM
from lit_eve.models.language_model import LanguageModel
from lit_eve.models.teacher import Teacher
from lit_eve.models.vision_language import VisionLanguageModel

Grids = Sequence[tuple[int, int]]
"""(rows, columns) of visual tokens of every image."""


@dataclass(frozen=True)
class Flops:
    """Forward arithmetic of one sample, by where it is spent."""

    vision: int
    """Pixels to visual tokens, by the published algorithm of the patch embedding."""
    layers: int
    """Products with the decoder's weights: 2 x parameters x tokens."""
    attention: int
    """Scores and weighted sums: every token with itself and all before it in its sample."""
    head: int
    """Logits, of supervised tokens only."""
    looking: int = 0
    """Layers between the decoder's that look at the images, where a model has some."""

    @property
    def total(self) -> int:
        """Everything."""
        return self.vision + self.layers + self.attention + self.head + self.looking


def forward_flops(
    model: VisionLanguageModel, tokens: int, supervised: int, grids: Grids = ()
) -> Flops:
    """Forward arithmetic of one sample.

    Args:
        model: on any device, also meta.
        tokens: of the sample, visual ones included.
        supervised: how many of them the loss looks at.
        grids: the sample's images.
    """
    decoder = model.language_model
    return Flops(
        vision=sum(model.vision_flops(rows, columns) for rows, columns in grids),
        layers=round(2 * _decoder_matrices(decoder) * tokens),
        attention=_attention_width(decoder) * decoder.depth * 2 * tokens * (tokens + 1),
        head=2 * decoder.head_weight.numel() * supervised,
        looking=model.looking_flops(tokens, len(grids)),
    )


def training_flops(model: VisionLanguageModel, forward: Flops, recompute: bool = False) -> int:
    """Arithmetic of a training step on one sample, given what is frozen.

    A product y = W x costs its forward pass once more for the gradient by x, where anything below
    it learns, and once more for the gradient by W, where W learns: three times for what is
    trained, twice for frozen layers over a trained patch embedding, once for the rest. Attention
    has no weights of its own: three times, or once if no gradient passes. Layers that look at
    images count as products.

    Args:
        model: with `requires_grad` as in the stage.
        forward: of the sample.
        recompute: whether the decoder's layers are computed a second time in the backward pass.
    """
    decoder = model.language_model
    through = any(map(_learns, (*model.vision, *model.looking, decoder)))
    trained = _decoder_matrices(decoder, trained_only=True) / _decoder_matrices(decoder)
    again = int(recompute and through)
    layers = forward.layers * (1 + through + trained + again)
    attention = forward.attention * (1 + 2 * through + again)
    head = forward.head * (1 + through + decoder.head_weight.requires_grad)
    vision = forward.vision * _times(model.vision)
    looking = forward.looking * (1 + through + any(map(_learns, model.looking)) + again)
    return round(vision + layers + attention + head + looking)


def alignment_flops(model: EncoderFreeVLM, cells: int) -> int:
    """Forward arithmetic of the patch alignment for one image of `cells` teacher cells."""
    alignment = model.patch_alignment
    return 0 if alignment is None else 2 * _matrices(alignment) * cells


def teacher_flops(teacher: Teacher) -> int:
    """Forward arithmetic of a teacher for one image: always one square of its own size."""
    config = teacher.model.config
    cells = (teacher.side // teacher.patch) ** 2
    matrices = 2 * _matrices(teacher.model) * cells
    attention: int = 4 * cells**2 * config.hidden_size * config.num_hidden_layers
    return matrices + attention


def _times(parts: Sequence[nn.Module]) -> float:
    """Forward passes that a training step of the parts costs, by their sizes: 3, or 1 if frozen."""
    sizes = [_matrices(part) for part in parts]
    spent = sum(size * (3 if _learns(part) else 1) for size, part in zip(sizes, parts, strict=True))
    return spent / max(1, sum(sizes))


def _learns(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())


def _matrices(module: nn.Module) -> int:
    """Numbers in the weights of linear layers and convolutions."""
    layers = [layer for layer in module.modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    return sum(layer.weight.numel() for layer in layers)


def _decoder_matrices(decoder: LanguageModel, trained_only: bool = False) -> float:
    """Numbers in the weight matrices that a token meets in the layers: no embedding, no head.

    Of weights that text and visual tokens have apart each token meets one: they count half.
    """
    tables = {id(decoder.head_weight), id(decoder.model.get_input_embeddings().weight)}
    routed = [module for module in decoder.modules() if isinstance(module, Routed)]
    halves = {id(weight) for module in routed for weight in module.parameters()}
    return sum(
        weight.numel() / (1 + (id(weight) in halves))
        for weight in decoder.parameters()
        if weight.ndim > 1
        and id(weight) not in tables
        and (weight.requires_grad or not trained_only)
    )


def _attention_width(decoder: LanguageModel) -> int:
    """Width of all query heads together."""
    config = decoder.text_config
    heads: int = config.num_attention_heads
    head_dim: int = getattr(config, "head_dim", None) or decoder.width // heads
    return heads * head_dim
