"""The likelihood of an answer is the product of the probabilities of its tokens, one by one."""

from __future__ import annotations

import pytest
import torch

from lit_eve.models.generation import Sampling, generate
from lit_eve.models.likelihood import answer_likelihoods
from tests.models.packed import Sample, pack
from tests.models.test_encoder_free import image
from tests.models.test_generation import END, tiny


def test_likelihoods_are_those_of_one_token_after_another() -> None:
    model = tiny()
    layout = model.patch_embedding.layout
    prompts: list[list[list[int] | torch.Tensor]] = [
        [[5], image(8, 16, 1), [6]],
        [[9, 10]],
        [image(16, 24, 2), [12]],
    ]
    answers = [[7, 8, 9], [11], [3, 4]]
    samples = [
        Sample([*prompt, answer], supervised=len(answer))
        for prompt, answer in zip(prompts, answers, strict=True)
    ]
    batch = pack([samples[:2], samples[2:]], layout, slots=32)
    found = answer_likelihoods(model, batch)
    for prompt, answer, likelihood in zip(prompts, answers, found, strict=True):
        total, greedy = 0.0, True
        for place, token in enumerate(answer):
            before = pack([[Sample([*prompt, answer[:place]])]], layout, slots=32)
            last = int((before.segment_ids[0] == 1).sum()) - 1
            scores = model.language_model.logits(model(before).hidden[0, last]).detach()
            total += float(scores.log_softmax(0)[token])
            greedy &= int(scores.argmax()) == token
        # Two orders of summation in float32 differ by up to 4e-6 here.
        assert likelihood.total == pytest.approx(total, abs=4e-5)
        assert (likelihood.tokens, likelihood.greedy) == (len(answer), greedy)
    chunked = answer_likelihoods(model, batch, max_logits=41)
    assert [one.total for one in chunked] == pytest.approx([one.total for one in found])


def test_what_the_model_would_write_is_greedy() -> None:
    model = tiny()
    layout = model.patch_embedding.layout
    prompt: list[list[int] | torch.Tensor] = [image(8, 16, 1), [6, 7]]
    written = generate(model, pack([[Sample(prompt)]], layout, slots=32), Sampling(4, END))[0]
    other = [*written[:-1], (written[-1] + 1) % END]
    samples = [Sample([*prompt, answer], supervised=len(answer)) for answer in (written, other)]
    one, two = answer_likelihoods(model, pack([samples], layout, slots=64))
    assert (one.greedy, two.greedy) == (True, False)
    assert one.total > two.total
