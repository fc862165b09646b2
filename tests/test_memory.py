"""Memory counted from shapes against what PyTorch keeps, on the meta device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from lit_eve.models.language_model import LanguageModel
from lit_eve.planning.memory import activation_bytes, step_memory
from lit_eve.planning.spread import Spread
from lit_eve.schema.running import Hardware
from lit_eve.strategies.blocks import unique_blocks

TOKENS = 512


def kept(model: nn.Module, run: Callable[[], Tensor]) -> int:
    """Bytes that autograd saves, parameters aside, each storage once."""
    own = {p.untyped_storage()._cdata for p in model.parameters()}
    held: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage()._cdata not in own:
            held[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        run()
    return sum(tensor.untyped_storage().nbytes() for tensor in held.values())


def layers(decoder: LanguageModel, embedded: Tensor) -> Tensor:
    """All layers, without what asks the device for values to find out about packing."""
    core: Any = decoder.train().model.get_decoder()  # type: ignore[no-untyped-call]
    angles = core.rotary_emb(embedded, torch.arange(embedded.shape[1], device="meta")[None])
    for layer in core.layers:
        embedded = layer(embedded, attention_mask=None, position_embeddings=angles)
    return embedded


# Measured: 4.3 % less than counted (7 B, 4096 tokens: 4.6 %); recomputed, just what is counted.
@pytest.mark.parametrize("recompute", [False, True])
def test_activations_are_those_that_pytorch_keeps(recompute: bool) -> None:
    with torch.device("meta"):
        decoder = LanguageModel.llama(1000, 512, depth=4, heads=8, ffn=1376)
        embedded = torch.empty(1, TOKENS, 512, requires_grad=True)
    if recompute:
        decoder.recompute_activations()
    found = kept(decoder, lambda: layers(decoder, embedded))
    logits = 2 * 4 * TOKENS * 1000
    counted = activation_bytes(decoder, TOKENS, half=False, recompute=recompute) - logits
    if recompute:  # the layer that is computed again comes in the backward pass
        counted -= activation_bytes(decoder, TOKENS, half=False) // 4 - logits // 4
    else:
        found -= 4 * 8 * 4 * TOKENS**2  # scores, which no kernel of a real device keeps
    assert found == pytest.approx(counted, rel=0.06)


def test_shards_hold_their_part_and_two_blocks_for_a_moment() -> None:
    with torch.device("meta"):
        decoder = LanguageModel.llama(100, 16, depth=3, heads=2, ffn=32)
    blocks = unique_blocks(decoder)
    block, total = (sum(p.numel() for p in m.parameters()) for m in (blocks[0], decoder))
    whole = step_memory(decoder, blocks, 7)
    part = step_memory(decoder, blocks, 7, shards=8)
    assert (whole.weights, whole.optimizer, whole.gathered) == (4 * total, 8 * total, 0)
    assert whole.total == 16 * total + 7
    assert (part.weights, part.gradients) == (4 * total // 8, 4 * total // 8)
    assert part.gathered == 4 * (2 * (total - 3 * block) + 3 * block)
    away = step_memory(decoder, blocks, 7, shards=8, offload=True)
    assert away.host == part.weights + part.gradients + part.optimizer
    assert away.total == part.gathered + 7


@pytest.mark.parametrize(
    ("hardware", "devices", "shards", "rounds", "at_once"),
    [
        ({}, 1, 1, 1, 84),
        ({"devices": 8, "strategy": "ddp", "micro_batch": 2}, 8, 1, 6, 2),
        ({"machine": "8xgpu", "micro_batch": 1}, 8, 8, 11, 1),
        ({"machine": "cluster", "nodes": 8, "micro_batch": 4}, 64, 8, 1, 2),
        ({"strategy": "hsdp", "devices": 8, "replicate": 4}, 8, 2, 1, 11),
    ],
)
def test_a_step_of_84_rows_is_spread(
    hardware: dict[str, object], devices: int, shards: int, rounds: int, at_once: int
) -> None:
    spread = Spread.of(Hardware.model_validate(hardware), devices)
    assert (spread.shards, spread.rounds(84), spread.at_once(84)) == (shards, rounds, at_once)
