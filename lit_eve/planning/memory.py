"""Memory of a training step on one device, counted from the model's shape.

Weights, gradients and AdamW's two moments are stored in float32 whatever the precision. Sharded,
each device has its share of them, and whole for a moment: two blocks' weights, one's gradients, and
all that lies outside the blocks (embedding, head, vision).
"""

from __future__ import annotations

from collections.abc import Sequence
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
    gathered: int
    """Of a sharded model, what is whole for a moment."""
    host: int
    """In the host's memory, for each device, where weights and moments are offloaded."""

    @property
    def total(self) -> int:
        """All on the device; what libraries and the allocator take comes on top."""
        stored = 0 if self.host else self.weights + self.gradients + self.optimizer
        return stored + self.activations + self.gathered


def step_memory(
    model: nn.Module,
    blocks: Sequence[nn.Module],
    activations: int,
    *,
    shards: int = 1,
    offload: bool = False,
) -> StepMemory:
    """Memory of a step, with `requires_grad` as in the stage.

    Args:
        model: everything that is stored, on any device, also meta.
        blocks: those in it that are sharded one by one.
        activations: bytes that one micro-batch keeps for its backward pass.
        shards: devices that share weights, gradients and moments.
        offload: whether those are in the host's memory.
    """
    total, trained = _numbers([model])
    weights, gradients = total * FLOAT // shards, trained * FLOAT // shards
    return StepMemory(
        weights=weights,
        gradients=gradients,
        optimizer=2 * gradients,
        activations=activations,
        gathered=_gathered(model, blocks) if shards > 1 else 0,
        host=weights + 3 * gradients if offload else 0,
    )


def _gathered(model: nn.Module, blocks: Sequence[nn.Module]) -> int:
    """Bytes that are whole at the worst moment, in the backward pass of a block."""
    total, trained = _numbers([model])
    in_blocks, trained_in_blocks = _numbers(blocks)
    largest = max((_numbers([block]) for block in blocks), default=(0, 0))
    outside = total - in_blocks + trained - trained_in_blocks
    return FLOAT * (outside + 2 * largest[0] + largest[1])


def _numbers(modules: Sequence[nn.Module]) -> tuple[int, int]:
    """Parameters of some modules, and those of them that learn, each once."""
    found = {id(p): p for module in modules for p in module.parameters()}
    sizes = [(p.numel(), p.requires_grad) for p in found.values()]
    return sum(size for size, _ in sizes), sum(size for size, learns in sizes if learns)


def activation_bytes(
    decoder: LanguageModel, tokens: int, *, half: bool, recompute: bool = False
) -> int:
    """What the backward pass of a Llama-like decoder keeps.

    Recomputed, it is every layer's input, in float32, and one layer whole. Otherwise it is,
    of each layer and token: both norms' input, normalised value and output (6 E), the inputs of
    the output projection and of attention with its result (3 E with two key-value widths), and in
    the feed-forward gate, activated gate, up and their product (4 F).
    """
    config = decoder.text_config
    heads: int = config.num_attention_heads
    kv_heads: int = getattr(config, "num_key_value_heads", None) or heads
    head_dim: int = getattr(config, "head_dim", None) or decoder.width // heads
    attention = 3 * heads * head_dim + 2 * kv_heads * head_dim
    per_token: int = 6 * decoder.width + attention + 4 * config.intermediate_size
    layer = per_token * tokens * (HALF if half else FLOAT)
    if half:  # products keep the cast copies of their weights
        tables = {id(decoder.head_weight), id(decoder.model.get_input_embeddings().weight)}
        in_layers = sum(p.numel() for p in decoder.parameters() if id(p) not in tables)
        layer += HALF * in_layers // decoder.depth
    inputs = decoder.depth * decoder.width * tokens * FLOAT
    kept = inputs + layer if recompute else layer * decoder.depth
    logits = 2 * FLOAT * min(LOGITS, tokens * decoder.vocabulary)
    return kept + logits
