"""Baselines with a vision encoder: what defines each system."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPImageProcessor, ViTConfig

from lit_eve.models.connectors.projections import MlpConnector
from lit_eve.models.connectors.resamplers import PerceiverConnector
from lit_eve.models.cross_attention import GatedCrossAttention, Looking
from lit_eve.models.encoder import CrossAttentionVLM, EncoderVLM
from lit_eve.models.generation import Sampling, generate
from lit_eve.models.language_model import LanguageModel
from lit_eve.models.teacher import Normalisation
from lit_eve.models.vision_encoder import VitEncoder
from tests.models.packed import Sample, pack

PLAIN = Normalisation((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
ROW = 24


def encoder(layers: tuple[int, ...] = (-1,), given: Normalisation = PLAIN) -> VitEncoder:
    config = ViTConfig(
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=16,
        patch_size=4,
    )
    return VitEncoder.random(config, layers, given).eval()


def decoder() -> LanguageModel:
    return LanguageModel.llama(40, width=16, depth=3, heads=2, max_positions=64)


def spliced() -> EncoderVLM:
    torch.manual_seed(0)
    return EncoderVLM(encoder(), MlpConnector(8, 16, 16), decoder()).eval()


def flamingo(open_gates: bool = False) -> CrossAttentionVLM:
    torch.manual_seed(0)
    connector = PerceiverConnector(8, 16, 16, queries=4, depth=1, heads=2)
    model = CrossAttentionVLM(encoder(), connector, decoder(), heads=2, every=2).eval()
    if open_gates:
        for layer in model.cross_attention.layers.values():
            assert isinstance(layer, GatedCrossAttention)
            layer.attention_gate.data.fill_(0.7)
            layer.ffn_gate.data.fill_(0.3)
    return model


def picture(seed: int, height: int = 8, width: int = 12) -> Tensor:
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed))


def hidden(model: EncoderVLM, rows: list[list[Sample]]) -> Tensor:
    with torch.no_grad():
        out: Tensor = model(pack(rows, model.layout, ROW)).hidden
    return out


def test_every_image_becomes_the_same_number_of_tokens() -> None:
    model = spliced()
    assert model.layout.num_tokens(2, 3) == model.layout.num_tokens(4, 4) == 16
    batch = pack([[Sample([picture(0), [1, 2]])]], model.layout, ROW)
    assert len(batch.image_slots) == 16
    assert model.look(batch.images).tokens.shape == (16, 16)


@pytest.mark.parametrize("make", [spliced, lambda: flamingo(open_gates=True)])
def test_samples_of_a_row_are_as_if_alone(make: object) -> None:
    model = make()  # type: ignore[operator]
    first, second = Sample([[7], picture(0), [1, 2]]), Sample([picture(1), [3]])
    length = len(first.parts[0]) + model.layout.num_tokens(1, 1) + 2
    if length + model.layout.num_tokens(1, 1) + 1 > ROW:
        first, length = Sample([[7, 1, 2]]), 3
    packed = hidden(model, [[first, second]])[0]
    alone = hidden(model, [[second]])[0]
    end = length + model.layout.num_tokens(1, 1) + 1
    torch.testing.assert_close(packed[length:end], alone[: end - length], atol=1e-5, rtol=1e-4)


def test_flamingo_is_the_bare_language_model_at_first_bit_by_bit() -> None:
    model = flamingo()
    batch = pack([[Sample([[5], picture(0), [1, 2, 3]], supervised=3)]], model.layout, ROW)
    with torch.no_grad():
        bare, _ = model.language_model.hidden_states(model.embed(batch), batch.position_ids)
        assert torch.equal(model(batch).hidden, bare)
    gates = [p for n, p in model.named_parameters() if n.endswith("gate")]
    assert len(gates) == 4  # two layers that look, in front of layers 0 and 2
    loss = model.next_token_loss(batch)
    loss.total.backward()  # type: ignore[no-untyped-call]
    assert all(gate.grad is not None and gate.grad.abs() > 0 for gate in gates)


def test_text_sees_the_image_shown_last_and_nothing_of_others() -> None:
    model = flamingo(open_gates=True)
    one, two = picture(0), picture(1)
    seen = hidden(model, [[Sample([[5, 6], one, [1, 2], two, [3]])]])[0]
    # In a decoder of text alone later tokens read earlier ones, so look before the second image.
    other = hidden(model, [[Sample([[5, 6], one, [1, 2], picture(9), [3]])]])[0]
    changed = hidden(model, [[Sample([[5, 6], picture(9), [1, 2], two, [3]])]])[0]
    assert torch.equal(seen[:5], other[:5])
    assert not torch.allclose(seen[5:7], other[5:7])
    assert torch.equal(seen[:2], changed[:2])  # before any image nothing is looked at
    assert not torch.allclose(seen[2:5], changed[2:5])


def test_which_slot_looks_at_which_image_worked_by_hand() -> None:
    # Row 0: sample [t, I0, t, I1, t], then sample [t, t]; row 1: sample [I2, t], then padding.
    positions = torch.tensor([[0, 1, 2, 3, 4, 0, 1], [0, 1, 0, 1, 2, 3, 4]])
    looking = Looking.of(torch.zeros(3, 4, 8), torch.tensor([1, 3, 7]), positions)
    seen = {n: looking.slots[n][looking.looks[n]].tolist() for n in range(3)}
    assert seen == {0: [1, 2], 1: [3, 4], 2: [7, 8]}
    assert looking.latest.tolist() == [-1, -1]


@pytest.mark.parametrize("make", [spliced, lambda: flamingo(open_gates=True)])
def test_generation_with_a_cache_says_what_whole_passes_say(make: object) -> None:
    model = make()  # type: ignore[operator]
    prompts = [Sample([picture(0), [1, 2]]), Sample([[4]])]
    batch = pack([[sample] for sample in prompts], model.layout, ROW)
    answers = generate(model, batch, Sampling(4, end_token=39))
    for sample, answer in zip(prompts, answers, strict=True):
        for place, token in enumerate(answer):
            longer = Sample([*sample.parts, answer[:place]])
            again = pack([[longer]], model.layout, ROW)
            last = int((again.segment_ids[0] == 1).sum()) - 1
            with torch.no_grad():
                logits = model.language_model.logits(model(again).hidden[0, last])
            assert int(logits.argmax()) == token


def test_the_encoder_gets_its_own_colours_and_a_square_with_margins() -> None:
    own = encoder()
    same = encoder(given=Normalisation((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)))
    same.load_state_dict(own.state_dict(), strict=False)
    layout = spliced().layout
    batch = pack([[Sample([picture(0, 8, 16)])]], layout, ROW)
    square = own._squares(batch.images, layout)
    assert square.shape == (1, 3, 16, 16)
    assert square[0, :, :4].abs().max() == 0  # two empty rows of cells: half above, half below
    assert square[0, :, 12:].abs().max() == 0
    torch.testing.assert_close(
        square[0, :, 4:12], batch_pixels(batch.images.patches), atol=1e-6, rtol=0
    )


def batch_pixels(patches: Tensor) -> Tensor:
    """(3, 8, 16) of patches of 4 px, row-major."""
    return patches.view(2, 4, 3, 4, 4).permute(2, 0, 3, 1, 4).reshape(3, 8, 16)


def test_arithmetic_of_the_vision_path_is_worked_by_hand() -> None:
    model = spliced()
    cells, width, inner = 16, 8, 16
    embed = 2 * cells * width * 3 * 4 * 4
    tokens = cells + 1
    layer = 2 * tokens * (4 * width * width + 2 * width * inner) + 2 * 2 * tokens * tokens * width
    connector = 2 * cells * (8 * 16 + 16 * 16)
    assert model.vision_flops(2, 3) == embed + 2 * layer + connector


def test_arithmetic_of_layers_that_look_is_what_pytorch_counts() -> None:
    model = flamingo()
    looking = Looking.of(torch.randn(1, 4, 16), torch.tensor([0]), torch.arange(ROW)[None])
    layer = model.cross_attention.layers["0"]
    counter = FlopCounterMode(display=False)
    with sdpa_kernel(SDPBackend.MATH), counter:
        layer(torch.randn(1, ROW, 16), looking)
    assert model.looking_flops(ROW, 1) == 2 * counter.get_total_flops()  # in front of two layers
    assert spliced().looking_flops(ROW, 1) == 0


def test_a_layer_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match=r"no hidden states \[5\].*Choose from -3 to 2"):
        encoder(layers=(5,))


def test_widths_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match=r"connector gives 12 channels.*the decoder reads 16"):
        EncoderVLM(encoder(), MlpConnector(8, 16, 12), decoder())


def test_an_encoder_saved_in_half_precision_learns_in_float32(tmp_path: Path) -> None:
    whole: Any = encoder().model
    whole.to(torch.bfloat16).save_pretrained(tmp_path)
    CLIPImageProcessor().save_pretrained(tmp_path)
    seeing = VitEncoder.pretrained(str(tmp_path), (-1,), PLAIN)
    features = seeing.encode(torch.zeros(1, 3, 16, 16))
    assert MlpConnector(8, 16, 4)(features).dtype == torch.float32
