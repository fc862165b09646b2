"""Packed rows are the same as separate ones; hidden states by number; what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from lit_eve.models.language_model import LanguageModel

LENGTHS = ((3, 1, 6), (5, 4, 1))  # samples of two rows of ten slots
POSITIONS = torch.tensor([[i for n in row for i in range(n)] for row in LENGTHS])


def llama(heads: int = 4, depth: int = 3, **changes: int) -> LanguageModel:
    torch.manual_seed(0)
    return LanguageModel.llama(50, 32, depth, heads, **changes)  # type: ignore[arg-type]


def from_config(kind: str, **settings: object) -> LanguageModel:
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **settings)
    model = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    return LanguageModel(model)


SMALL = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "pad_token_id": None,
}


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "mistral", "phi3", "olmo2"])
def test_packed_samples_equal_separate_ones(kind: str) -> None:
    model = from_config(kind, **SMALL).eval()
    embeddings = torch.randn(2, 10, model.width)
    packed, _ = model.hidden_states(embeddings, POSITIONS)
    for row, lengths in enumerate(LENGTHS):
        start = 0
        for length in lengths:
            part = slice(start, start + length)
            sample, positions = embeddings[row, part][None], torch.arange(length)[None]
            alone, _ = model.hidden_states(sample, positions)
            # Measured: 4e-7.
            torch.testing.assert_close(
                model.logits(packed[row, part]), model.logits(alone[0]), atol=3e-6, rtol=1e-5
            )
            start += length


def test_a_changed_sample_changes_no_other() -> None:
    model = llama().double()
    embeddings = torch.randn(2, 10, 32, dtype=torch.float64)
    changed = embeddings.clone()
    changed[0, 3] += 1  # the one token of the second sample of the first row
    before, _ = model.hidden_states(embeddings, POSITIONS)
    after, _ = model.hidden_states(changed, POSITIONS)
    difference = (before - after).abs().amax(2)
    assert difference[0, 3] > 1e-3
    difference[0, 3] = 0
    assert not difference.any()


def test_hidden_states_are_numbered_from_the_embedding_to_the_normalised_output() -> None:
    model = llama(depth=2)
    embeddings = torch.randn(1, 4, 32)
    positions = torch.arange(4)[None]
    final, states = model.hidden_states(embeddings, positions, layers=(2, 0, 1))
    assert list(states) == [2, 0, 1]
    torch.testing.assert_close(states[0], embeddings, atol=0, rtol=0)
    torch.testing.assert_close(states[2], final, atol=0, rtol=0)
    first = model.model.get_submodule("model.layers.0")
    outputs: list[Tensor] = []
    handle = first.register_forward_hook(lambda *call: outputs.append(call[2]))
    model.hidden_states(embeddings, positions)
    handle.remove()
    torch.testing.assert_close(states[1], outputs[0], atol=0, rtol=0)


def test_recomputing_layers_keeps_hidden_states_and_gradients() -> None:
    model = llama(depth=2).train()
    embeddings = torch.randn(1, 4, 32)
    positions = torch.arange(4)[None]

    def run() -> tuple[Tensor, list[Tensor]]:
        final, states = model.hidden_states(embeddings, positions, layers=(1,))
        loss = final.square().sum() + states[1].square().sum()
        weights = [p for n, p in model.named_parameters() if "layers" in n]
        return loss, list(torch.autograd.grad(loss, weights))

    plain_loss, plain_gradients = run()
    model.recompute_activations()
    loss, gradients = run()
    torch.testing.assert_close(loss, plain_loss, atol=0, rtol=0)
    torch.testing.assert_close(gradients, plain_gradients, atol=1e-6, rtol=1e-5)


def test_shape_and_sizes_are_what_was_asked() -> None:
    model = llama(kv_heads=2, ffn=40, max_positions=77)
    assert (model.width, model.depth, model.vocabulary, model.max_positions) == (32, 3, 50, 77)
    assert model.head_bias is None
    # By hand: q and o 32 x 32, k and v 32 x 16, three 32 x 40, two norms; embedding and head.
    layer = 2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 40 + 2 * 32
    assert sum(p.numel() for p in model.parameters()) == 3 * layer + 32 + 2 * 50 * 32


def test_random_weights_spread_as_asked() -> None:
    model = LanguageModel.llama(500, 64, 2, 4, init_std=0.125)
    matrices = [weight for weight in model.parameters() if weight.dim() > 1]
    assert len(matrices) == 2 + 2 * 7
    for weight in matrices:
        assert weight.std().item() == pytest.approx(0.125, rel=0.05)


def test_a_tied_head_is_the_embedding() -> None:
    model = LanguageModel.llama(50, 32, 1, 4, tie_embeddings=True)
    assert model.head_weight is model.model.get_input_embeddings().weight


def test_a_7b_decoder_costs_no_memory_on_the_meta_device() -> None:
    with torch.device("meta"):
        model = LanguageModel.llama(32_000, 4096, 32, 32, ffn=11_008)
    assert sum(p.numel() for p in model.parameters()) == 6_738_415_616  # Llama-7B
    assert all(p.is_meta for p in model.parameters())


def test_a_model_saved_by_transformers_is_read_back(tmp_path: object) -> None:
    model = llama()
    model.model.save_pretrained(tmp_path)  # type: ignore[arg-type]
    again = LanguageModel.pretrained(str(tmp_path))
    torch.testing.assert_close(again.state_dict(), model.state_dict(), atol=0, rtol=0)
    shaped = LanguageModel.shaped_like(str(tmp_path))
    assert [p.shape for p in shaped.parameters()] == [p.shape for p in model.parameters()]


def test_a_shape_that_cannot_be_read_says_where_else_it_may_come_from(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unreachable(name: str) -> None:
        raise OSError("We couldn't connect to the hub.\nMore of this.")

    monkeypatch.setattr(AutoConfig, "from_pretrained", unreachable)
    with pytest.raises(
        ValueError, match=r"the config of a/b, .*the hub\.\) Connect to the hub, or"
    ):
        LanguageModel.shaped_like("a/b")


def test_a_hidden_state_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match=r"hidden states \[4\].*numbered 0 .* to 3"):
        llama().hidden_states(torch.randn(1, 2, 32), torch.arange(2)[None], layers=(3, 4))


def test_heads_must_share_the_width_and_key_value_heads_the_heads() -> None:
    with pytest.raises(ValueError, match="Make width a multiple of twice the heads"):
        llama(heads=3)
    with pytest.raises(ValueError, match="Make kv_heads a divisor of heads"):
        llama(kv_heads=3)


def test_decoders_that_would_mix_packed_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="attention layers only"):
        from_config("qwen3_next", **SMALL, layer_types=["linear_attention", "full_attention"])


def test_decoders_that_change_their_logits_are_refused() -> None:
    with pytest.raises(ValueError, match=r"final_logit_softcapping.*plain linear head"):
        from_config("gemma2", **SMALL)


def test_recurrent_decoders_are_refused() -> None:
    small = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 1, "state_size": 4}
    with pytest.raises(ValueError, match="attention layers only"):
        from_config("mamba", **small)
