"""EVEv2's exact property, from the words of an experiment file to trained weights."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lit_eve import assemble
from lit_eve.models.encoder_free import EncoderFreeVLM
from lit_eve.schema.language_models import Llama
from lit_eve.schema.models import EncoderFree
from lit_eve.schema.patch_embeddings import EveV2PatchEmbedding
from lit_eve.tasks.optimizers import AdamWOptions, build_adamw
from lit_eve_callbacks.staged_unfreezing import trains
from tests.models.packed import Sample, pack

PARTS = {"patch_embedding": lambda step: 1e-2, "language_model.*.vision": lambda step: 1e-2}


def model(divide: str | None) -> EncoderFreeVLM:
    torch.manual_seed(0)
    decoder = {"type": "llama", "width": 16, "depth": 2, "heads": 2, "divide": divide}
    options = EncoderFree(
        type="encoder_free",
        language_model=Llama.model_validate(decoder),
        patch_embedding=EveV2PatchEmbedding(type="eve_v2", patch=2, pool=2, width=8),
    )
    built = assemble.vision_language(options, num_tokens=30)
    assert isinstance(built, EncoderFreeVLM)
    return built


def text_logits(vlm: EncoderFreeVLM) -> Tensor:
    batch = pack([[Sample([[3, 1, 4, 1, 5]])]], vlm.patch_embedding.layout, 8)
    return vlm.language_model.logits(vlm(batch).hidden)


@pytest.mark.parametrize("divide", ["norms", "ffn", "full"])
def test_training_what_is_visual_leaves_text_alone_to_the_last_bit(divide: str) -> None:
    vlm = model(divide)
    before = text_logits(vlm).detach().clone()
    assert torch.equal(before, text_logits(model(None)))
    image = torch.randn(3, 8, 8)
    batch = pack([[Sample([[1], image, [2, 3, 4]], supervised=2)]], vlm.patch_embedding.layout, 16)
    seen = vlm.next_token_loss(batch).total.detach()
    for name, parameter in vlm.named_parameters():
        parameter.requires_grad_(trains(name, dict.fromkeys(PARTS, 0), step=0))
    optimizer, _ = build_adamw(vlm, PARTS, AdamWOptions())
    for _ in range(5):
        optimizer.zero_grad()
        torch.autograd.backward(vlm.next_token_loss(batch).total)
        optimizer.step()
    assert vlm.next_token_loss(batch).total < seen
    assert torch.equal(text_logits(vlm), before)
