"""Arithmetic counted from shapes against PyTorch's own counter, and known models."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import ViTConfig

from lit_eve.models.connectors.projections import LinearConnector
from lit_eve.models.encoder import CrossAttentionVLM
from lit_eve.models.encoder_free import EncoderFreeVLM
from lit_eve.models.language_model import LanguageModel
from lit_eve.models.patch_alignment import PatchAlignment
from lit_eve.models.patch_embedding import EvePatchEmbedding, LinearPatchEmbedding
from lit_eve.models.teacher import Normalisation, Teacher
from lit_eve.models.vision_encoder import VitEncoder
from lit_eve.planning.flops import (
    Flops,
    alignment_flops,
    forward_flops,
    teacher_flops,
    training_flops,
)
from lit_eve.planning.plan import quantity
from lit_eve_data.batches import ImageLayout
from tests.models.packed import Sample, pack, pack_images

TOKENS = 12
PLAIN = Normalisation((0.0,) * 3, (1.0,) * 3)
SEEING = ViTConfig(
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=1,
    num_attention_heads=2,
    image_size=4,
    patch_size=2,
)


def model(tied: bool = False) -> EncoderFreeVLM:
    decoder = LanguageModel.llama(40, 16, 3, 4, kv_heads=2, ffn=24, tie_embeddings=tied)
    alignment = PatchAlignment(16, 3, 8, 6, heads=2, every=1)
    return EncoderFreeVLM(decoder, LinearPatchEmbedding(4, 16), alignment)


def counted(run: object) -> dict[str, int]:
    """What PyTorch counts, by operation."""
    assert callable(run)
    with FlopCounterMode(display=False) as counter:
        run()
    return {str(name): flops for name, flops in counter.get_flop_counts()["Global"].items()}


@pytest.mark.parametrize("tied", [False, True])
def test_a_decoder_costs_what_pytorch_counts(tied: bool) -> None:
    built = model(tied)
    built.language_model.model.set_attn_implementation("eager")  # others PyTorch cannot count
    flops = forward_flops(built, TOKENS, supervised=5)
    embeddings, positions = torch.randn(1, TOKENS, 16), torch.arange(TOKENS)[None]
    seen = counted(lambda: built.language_model.hidden_states(embeddings, positions))
    assert flops.layers == seen["aten.mm"]
    # PyTorch counts the tokens to come too.
    assert flops.attention == seen["aten.bmm"] * (TOKENS + 1) // (2 * TOKENS)
    assert flops.head == 2 * 40 * 16 * 5
    assert flops.total == flops.layers + flops.attention + flops.head


def test_the_vision_part_is_the_sum_over_the_images() -> None:
    embedding = LinearPatchEmbedding(4, 16)
    images = pack_images([torch.rand(3, 8, 12), torch.rand(3, 4, 4)], embedding.layout)
    seen = counted(lambda: embedding(images))
    assert sum(embedding.flops(*grid) for grid in images.grids) == sum(seen.values())


def test_alignment_costs_what_pytorch_counts() -> None:
    built = model()
    layout = built.patch_embedding.layout
    batch = pack([[Sample([torch.rand(3, 8, 12), [1]])]], layout, TOKENS)
    states = {n: torch.randn(1, TOKENS, 16) for n in range(4)}
    assert built.patch_alignment is not None
    align = built.patch_alignment
    seen = counted(lambda: align(states, batch, ((2, 3),)))
    assert alignment_flops(built, 6) == sum(seen.values())


def test_a_teacher_costs_what_pytorch_counts() -> None:
    shape = ViTConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=32,
        patch_size=2,
    )
    teacher = Teacher.random(shape, -1, ImageLayout(2, 1, cls=False, row_end=True), PLAIN)
    teacher.model.set_attn_implementation("eager")
    pixels = torch.rand(1, 3, 32, 32)
    seen = sum(counted(lambda: teacher.model(pixel_values=pixels)).values())
    # Ours leaves out the class token: one of 257.
    assert teacher_flops(teacher) == pytest.approx(seen, rel=0.01)


def test_training_costs_three_times_what_is_trained_and_twice_what_gradients_pass() -> None:
    built = model()
    forward = Flops(vision=1000, layers=100, attention=10, head=1)
    assert training_flops(built, forward) == 3333
    built.language_model.requires_grad_(False)
    assert training_flops(built, forward) == 3000 + 200 + 30 + 2
    assert training_flops(built, forward, recompute=True) == 3000 + 300 + 40 + 2
    built.patch_embedding.requires_grad_(False)
    assert training_flops(built, forward, recompute=True) == 1111
    built.language_model.requires_grad_(True)
    assert training_flops(built, forward) == 1000 + 333


def test_layers_that_look_cost_three_times_if_they_learn_and_twice_if_gradients_pass() -> None:
    encoder, decoder = VitEncoder.random(SEEING, (-1,), PLAIN), LanguageModel.llama(40, 16, 2, 4)
    built = CrossAttentionVLM(encoder, LinearConnector(16, 4, 16), decoder, heads=4, every=1)
    alone = Flops(vision=0, layers=0, attention=0, head=0, looking=10)
    assert forward_flops(built, TOKENS, 5, [(2, 2)]).looking == built.looking_flops(TOKENS, 1)
    assert training_flops(built, alone) == 30
    built.cross_attention.requires_grad_(False)
    assert training_flops(built, alone, recompute=True) == 30
    assert training_flops(built.requires_grad_(False), alone, recompute=True) == 10


# 2 x 6.476 G parameters of the layers x 601 tokens; the vision part is EVE's own figure.
def test_eve_7b_is_counted_without_memory() -> None:
    with torch.device("meta"):
        built = EncoderFreeVLM(
            LanguageModel.llama(32_000, 4096, 32, 32, ffn=11_008),
            EvePatchEmbedding(14, 2, 1024, 4096, heads=8),
        )
    flops = forward_flops(built, 601, supervised=0, grids=((24, 24),))
    assert flops.vision / 1e9 == pytest.approx(42.5, abs=0.05)
    assert flops.layers / 1e12 == pytest.approx(2 * 6.4760 * 0.601, rel=1e-4)


def test_the_plan_says_the_published_figures_to_a_tenth() -> None:
    assert [quantity(value, "FLOP", ".1f") for value in (42.494e9, 167.81e9)] == [
        "42.5 GFLOP",
        "167.8 GFLOP",
    ]
