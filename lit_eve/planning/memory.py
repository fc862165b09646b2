"""Memory of a training step on one device, counted from the model's shape.

Weights, gradients and AdamW's two moments are stored in float32 whatever the precision.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from lit_eve.models.language_model import LanguageModel

FLOAT = 4
"""Bytes of a stored number."""
HALF = 2
"""Bytes of an activation under bf16 or fp16."""
LOGITS = 2**24
"""Most logits that the chunked loss holds at once."""


@dataclass(frozen=True)
class StepMemory:
    """Bytes on each device."""

    weights: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        """All of it; what libraries and the allocator take comes on top."""
        return self.weights + self.gradients + self.optimizer + self.activations


def step_memory(
    model: nn.Module, decoder: LanguageModel, tokens: int, *, half: bool, shards: int = 1
) -> StepMemory:
    """Memory of a step, with `requires_grad` as in the stage.

    Args:
        model: everything that is stored, on any device, also meta.
        decoder: its decoder.
        tokens: slots that one device works on at once.
        half: whether activations are bf16 or fp16.
        shards: devices that share weights, gradients and moments.
    """
    total = sum(parameter.numel() for parameter in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return StepMemory(
        weights=total * FLOAT // shards,
        gradients=trained * FLOAT // shards,
        optimizer=2 * trained * FLOAT // shards,
        activations=activation_bytes(decoder, tokens, half=half),
    )


def activation_bytes(decoder: LanguageModel, tokens: int, *, half: bool) -> int:
    """What the backward pass of a Llama-like decoder keeps, without recomputation.

    Of each layer and token: both norms' input, normalised value and output (6 E), the inputs of
    the output projection and of attention with its result (3 E with two key-value widths), and in
    the feed-forward gate, activated gate, up and their product (4 F).
    """
    config = decoder.text_config
    heads: int = config.num_attention_heads
    kv_heads: int = getattr(config, "num_key_value_heads", None) or heads
    head_dim: int = getattr(config, "head_dim", None) or decoder.width // heads
    attention = 3 * heads * head_dim + 2 * kv_heads * head_dim
    per_token: int = 6 * decoder.width + attention + 4 * config.intermediate_size
    kept = per_token * decoder.depth * tokens * (HALF if half else FLOAT)
    logits = 2 * FLOAT * min(LOGITS, tokens * decoder.vocabulary)
    return kept + logits
