"""Weights of their own for visual tokens: routed, never blended; text alone stays the same."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM

from lit_eve.models.divide_and_conquer import Divided, DividedLanguageModel, Routed, Routing
from lit_eve.models.encoder_free import EncoderFreeVLM
from lit_eve.models.generation import Sampling, generate
from lit_eve.models.language_model import LanguageModel
from lit_eve.models.patch_embedding import EveV2PatchEmbedding
from lit_eve.planning.flops import forward_flops
from lit_eve_data.batches import PackedBatch
from tests.models.packed import Sample, pack

VARIANTS = get_args(Divided)
EACH = pytest.mark.parametrize("divided", VARIANTS)
VISUAL = torch.tensor([9, 3, 2])  # of two rows of six slots
POSITIONS = torch.arange(6).expand(2, 6)


def plain() -> LanguageModel:
    torch.manual_seed(0)
    return LanguageModel.llama(30, 16, 2, 2, max_positions=64)


def model(divided: Divided) -> DividedLanguageModel:
    """With visual weights that are not the text's."""
    made = DividedLanguageModel(plain(), divided)
    torch.manual_seed(1)
    for module in made.modules():
        if isinstance(module, Routed):
            for weight in module.vision.parameters():
                nn.init.normal_(weight, mean=float(weight.ndim == 1), std=0.3)
    return made


class Blended(nn.Module):
    """The published way: both weights for every token, then one of the two results."""

    def __init__(self, routed: Routed) -> None:
        super().__init__()
        self.text, self.vision = routed.text, routed.vision

    def forward(self, tokens: Tensor) -> Tensor:
        mask = torch.zeros(12, 1, dtype=tokens.dtype).index_fill(0, VISUAL, 1).view(2, 6, 1)
        blend: Tensor = self.text(tokens) * (1 - mask) + self.vision(tokens) * mask
        return blend


@EACH
def test_routing_gives_what_blending_gives(divided: Divided) -> None:
    decoder = model(divided).double()
    embeddings = torch.randn(2, 6, 16, dtype=torch.float64)
    routed, _ = decoder.hidden_states(embeddings, POSITIONS, visual=VISUAL)
    weights = [weight for name, weight in decoder.named_parameters() if "layers" in name]
    scale = torch.randn_like(routed)
    gradients = torch.autograd.grad((routed * scale).sum(), weights)
    for owner in list(decoder.modules()):
        for name, child in list(owner.named_children()):
            if isinstance(child, Routed):
                setattr(owner, name, Blended(child))
    blended, _ = decoder.hidden_states(embeddings, POSITIONS, visual=VISUAL)
    torch.testing.assert_close(routed, blended)
    wanted = torch.autograd.grad((blended * scale).sum(), weights)
    # Transformers' norms compute in float32.
    torch.testing.assert_close(gradients, wanted, atol=1e-5, rtol=1e-5)


@EACH
def test_a_fresh_copy_changes_nothing(divided: Divided) -> None:
    embeddings = torch.randn(2, 6, 16)
    before, _ = plain().hidden_states(embeddings, POSITIONS)
    after, _ = DividedLanguageModel(plain(), divided).hidden_states(
        embeddings, POSITIONS, visual=VISUAL
    )
    torch.testing.assert_close(after, before, atol=2e-6, rtol=1e-5)


@EACH
def test_text_alone_stays_bit_equal_while_visual_weights_learn(divided: Divided) -> None:
    decoder = DividedLanguageModel(plain(), divided)
    for name, weight in decoder.named_parameters():
        weight.requires_grad_(".vision." in name)
    learning = [weight for weight in decoder.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=0.1)
    embeddings = torch.randn(2, 6, 16)
    for _ in range(3):
        hidden, _ = decoder.hidden_states(embeddings, POSITIONS, visual=VISUAL)
        torch.autograd.backward(hidden.square().sum())
        optimizer.step()
        optimizer.zero_grad()
    ids = torch.randint(30, (2, 6))
    before, _ = plain().hidden_states(plain().embed(ids), POSITIONS)
    for visual in (None, torch.zeros(0, dtype=torch.int64)):
        after, _ = decoder.hidden_states(decoder.embed(ids), POSITIONS, visual=visual)
        assert torch.equal(decoder.logits(after), plain().logits(before))
    changed, _ = decoder.hidden_states(decoder.embed(ids), POSITIONS, visual=VISUAL)
    assert not torch.allclose(changed, before, atol=1e-2)


@EACH
def test_every_token_is_computed_once(divided: Divided) -> None:
    embeddings = torch.randn(2, 6, 16)
    counts = []
    for decoder in (plain(), model(divided)):
        with FlopCounterMode(display=False) as counter:
            decoder.hidden_states(embeddings, POSITIONS, visual=VISUAL)
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1]
    embedding = EveV2PatchEmbedding(4, 2, 8, 16)
    plain_flops = forward_flops(EncoderFreeVLM(plain(), embedding), 12, 3)
    assert forward_flops(EncoderFreeVLM(model(divided), embedding), 12, 3) == plain_flops


@EACH
def test_text_only_rows_reach_every_weight(divided: Divided) -> None:
    decoder = model(divided)
    none = torch.zeros(0, dtype=torch.int64)
    hidden, _ = decoder.hidden_states(torch.randn(2, 6, 16), POSITIONS, visual=none)
    torch.autograd.backward(hidden.sum())
    for name, weight in decoder.named_parameters():
        if ".vision." in name:
            assert weight.grad is not None, name
            assert not weight.grad.any(), name


def test_what_is_divided_is_what_was_asked() -> None:
    inside = {
        variant: {
            name.split(".")[-1]
            for name, module in model(variant).named_modules()
            if isinstance(module, Routed)
        }
        for variant in VARIANTS
    }
    norms = {"input_layernorm", "post_attention_layernorm"}
    projections = {"q_proj", "k_proj", "v_proj", "o_proj"}
    assert inside == {"norms": norms, "ffn": {"mlp"}, "full": norms | projections | {"mlp"}}


def test_recomputed_layers_are_routed_as_before() -> None:
    decoder = model("full").train()
    weights = [weight for name, weight in decoder.named_parameters() if "layers" in name]

    def gradients() -> list[Tensor]:
        torch.manual_seed(2)
        hidden, _ = decoder.hidden_states(torch.randn(2, 6, 16), POSITIONS, visual=VISUAL)
        loss = hidden.square().sum()
        with torch.no_grad():  # another batch in between must not be taken for this one
            decoder.hidden_states(torch.randn(1, 4, 16), torch.arange(4)[None], visual=VISUAL[2:])
        return list(torch.autograd.grad(loss, weights))

    kept = gradients()
    decoder.recompute_activations()
    torch.testing.assert_close(gradients(), kept, atol=1e-6, rtol=1e-5)


def test_hidden_states_of_layers_are_those_of_the_plain_decoder_s_numbering() -> None:
    decoder = DividedLanguageModel(plain(), "full")
    embeddings = torch.randn(2, 6, 16)
    _, before = plain().hidden_states(embeddings, POSITIONS, layers=(0, 1, 2))
    _, after = decoder.hidden_states(embeddings, POSITIONS, layers=(0, 1, 2), visual=VISUAL)
    torch.testing.assert_close(after, before, atol=2e-6, rtol=1e-5)


def test_copying_starts_the_visual_weights_over() -> None:
    decoder = model("full")
    decoder.copy_text_weights()
    for module in decoder.modules():
        if isinstance(module, Routed):
            torch.testing.assert_close(
                module.vision.state_dict(), module.text.state_dict(), atol=0, rtol=0
            )


def prompts(vlm: EncoderFreeVLM, *parts: list[list[int] | Tensor]) -> PackedBatch:
    return pack([[Sample(part) for part in parts]], vlm.patch_embedding.layout, slots=32)


def test_answers_are_those_of_the_full_forward_pass() -> None:
    vlm = EncoderFreeVLM(model("full"), EveV2PatchEmbedding(4, 2, 8, 16))
    for weight in vlm.language_model.parameters():
        nn.init.normal_(weight, std=0.4)
    picture = torch.randn(3, 8, 16)
    asked: list[list[list[int] | Tensor]] = [[[1], picture, [2, 3]], [[4, 5]]]
    answers = generate(vlm, prompts(vlm, *asked), Sampling(5, end_token=29))
    for parts, answer in zip(asked, answers, strict=True):
        ids: list[int] = []
        for expected in answer:
            batch = prompts(vlm, [*parts, ids])
            last = int((batch.segment_ids == 1).sum()) - 1
            logits = vlm.language_model.logits(vlm(batch).hidden[0, last])
            assert int(logits.argmax()) == expected
            ids.append(expected)
    assert len(answers[0]) >= 3
    assert not vlm.language_model.model._forward_pre_hooks


def test_slots_that_are_not_visual_are_text_in_their_order() -> None:
    routing = Routing.of(torch.tensor([4, 1]), 6)
    assert routing.text.tolist() == [0, 2, 3, 5]
    assert routing.visual.tolist() == [4, 1]


@pytest.mark.parametrize("kind", ["gpt2", "gpt_neox"])
def test_decoders_built_otherwise_are_refused(kind: str) -> None:
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = AutoConfig.for_model(kind, **small, vocab_size=30, intermediate_size=16)
    made = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    with pytest.raises(ValueError, match="Choose a Llama, Qwen, Mistral or the like"):
        DividedLanguageModel(LanguageModel(made), "full")
