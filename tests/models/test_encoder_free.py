"""The whole model on packed batches of text and images."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lit_eve.losses.alignment import alignment_loss
from lit_eve.models.encoder_free import EncoderFreeVLM
from lit_eve.models.language_model import LanguageModel
from lit_eve.models.patch_alignment import PatchAlignment
from lit_eve.models.patch_embedding import EvePatchEmbedding
from lit_eve.models.teacher import TeacherFeatures
from lit_eve_data.batches import IGNORE
from tests.models.eve_plain import eve_tokens
from tests.models.packed import Sample, pack


def tiny() -> EncoderFreeVLM:
    torch.manual_seed(0)
    decoder = LanguageModel.llama(vocabulary=40, width=16, depth=2, heads=2)
    return EncoderFreeVLM(decoder, EvePatchEmbedding(4, 2, 8, 16, heads=2))


def image(height: int, width: int, seed: int) -> Tensor:
    return torch.randn(3, height, width, generator=torch.Generator().manual_seed(seed))


def samples() -> list[Sample]:
    return [
        Sample([[5], image(8, 16, 1), [6, 7, 8]], supervised=2),
        Sample([[9, 10, 11]], supervised=1),
        Sample([image(16, 8, 2), [12], image(8, 8, 3), [13, 14]], supervised=2),
    ]


def plain_loss(model: EncoderFreeVLM, sample: Sample) -> Tensor:
    """One sample on its own: no packing, no splice, the decoder's own loss."""
    pieces, labels = [], []
    for part in sample.parts:
        if isinstance(part, Tensor):
            assert isinstance(model.patch_embedding, EvePatchEmbedding)
            pixels = part.to(model.language_model.head_weight.dtype)
            pieces.append(eve_tokens(model.patch_embedding, pixels))
            labels += [IGNORE] * len(pieces[-1])
        else:
            pieces.append(model.language_model.embed(torch.tensor(part)))
            labels += part
    target = torch.tensor(labels)
    target[: -sample.supervised] = IGNORE
    logits = model.language_model.model(inputs_embeds=torch.cat(pieces)[None]).logits[0]
    return F.cross_entropy(logits[:-1], target[1:], reduction="sum")


def test_loss_and_gradients_of_a_packed_batch_are_the_sums_over_its_samples() -> None:
    model = tiny().double()
    first, second, third = samples()
    batch = pack([[first, second], [third]], model.patch_embedding.layout, slots=24)
    images = replace(batch.images, patches=batch.images.patches.double())
    batch = replace(batch, images=images)
    loss = model.next_token_loss(batch)
    wanted = sum((plain_loss(model, s) for s in samples()), torch.zeros(()))
    assert loss.number.item() == 5
    torch.testing.assert_close(loss.total, wanted, atol=1e-8, rtol=1e-9)
    parameters = list(model.parameters())
    got = torch.autograd.grad(loss.total, parameters)
    for (name, _), a, b in zip(
        model.named_parameters(), got, torch.autograd.grad(wanted, parameters), strict=True
    ):
        torch.testing.assert_close(a, b, atol=1e-9, rtol=1e-6, msg=name)


def test_the_loss_of_an_output_at_hand_is_the_same() -> None:
    model = tiny()
    batch = pack([samples()], model.patch_embedding.layout, slots=32)
    assert torch.equal(
        model.next_token_loss(batch, model(batch)).total, model.next_token_loss(batch).total
    )


def test_text_only_rows_cost_no_window_and_still_reach_every_parameter() -> None:
    model = tiny()
    batch = pack([[samples()[1]]], model.patch_embedding.layout, slots=4)
    assert batch.images.patches.numel() == 0
    torch.autograd.backward(model.next_token_loss(batch).mean())
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_pixel_moves_only_what_comes_after_its_image_in_its_own_sample() -> None:
    model = tiny()
    first, second, third = samples()
    rows = [[first, second], [third]]
    before = model(pack(rows, model.patch_embedding.layout, slots=24)).hidden
    brighter = Sample([[5], image(8, 16, 1) + 1, [6, 7, 8]], supervised=2)
    rows = [[brighter, second], [third]]
    after = model(pack(rows, model.patch_embedding.layout, slots=24)).hidden
    moved = (before - after).abs().amax(2) > 1e-6
    # Slot 0 is text before the image; 1..4 are its tokens, 5..7 the text after it.
    assert moved[0].tolist() == [False] + [True] * 7 + [False] * 16
    assert not moved[1].any()


def test_the_parts_have_the_names_an_experiment_uses() -> None:
    assert [name for name, _ in tiny().named_children()] == ["patch_embedding", "language_model"]


def test_widths_that_do_not_meet_are_refused() -> None:
    decoder = LanguageModel.llama(vocabulary=40, width=16, depth=1, heads=2)
    with pytest.raises(ValueError, match=r"patch embedding gives 12 .* decoder reads 16"):
        EncoderFreeVLM(decoder, EvePatchEmbedding(4, 2, 8, 12, heads=2))


def test_alignment_compares_the_decoder_with_a_teacher_on_the_same_images() -> None:
    parts = tiny()
    alignment = PatchAlignment(16, depth=2, width=8, teacher_width=6, heads=2, every=1)
    model = EncoderFreeVLM(parts.language_model, parts.patch_embedding, alignment)
    assert "patch_alignment" in dict(model.named_children())
    batch = pack([samples()], parts.patch_embedding.layout, slots=32)
    output = model(batch, alignment.layers)
    grids = ((1, 2), (2, 1), (1, 1))
    teacher = TeacherFeatures(torch.randn(5, 6), grids)
    loss = model.alignment_loss(batch, output, teacher)
    features = alignment(output.layer_states, batch, grids)
    assert loss.number.item() == 3
    assert torch.equal(loss.total, alignment_loss(features, teacher.features, grids).total)
    gradients = torch.autograd.grad(loss.mean(), list(model.patch_embedding.parameters()))
    assert all(gradient.any() for gradient in gradients)


def test_aligning_without_a_patch_alignment_is_refused() -> None:
    model = tiny()
    batch = pack([samples()], model.patch_embedding.layout, slots=32)
    teacher = TeacherFeatures(torch.zeros(0, 6), ())
    with pytest.raises(ValueError, match=r"Add model\.patch_alignment"):
        model.alignment_loss(batch, model(batch), teacher)
