"""Batched answers are those of one prompt at a time, and of the full forward pass."""

from __future__ import annotations

import pytest
import torch
from transformers.generation.streamers import BaseStreamer

from lit_eve.models.encoder_free import EncoderFreeVLM
from lit_eve.models.generation import Sampling, generate
from lit_eve.models.language_model import LanguageModel
from lit_eve.models.patch_embedding import EvePatchEmbedding
from tests.models.packed import Sample, pack
from tests.models.test_encoder_free import image

END = 39
PROMPTS = [
    Sample([[5], image(8, 16, 1), [6, 7, 8]]),
    Sample([[9, 10, 11]]),
    Sample([image(16, 24, 2), [12], image(8, 8, 3), [13, 14]]),
    Sample([[15]]),
]


def tiny(max_positions: int = 64) -> EncoderFreeVLM:
    torch.manual_seed(3)
    decoder = LanguageModel.llama(40, 16, 2, 2, max_positions=max_positions)
    for parameter in decoder.parameters():  # far from uniform scores, so that answers vary
        torch.nn.init.normal_(parameter, std=0.4)
    return EncoderFreeVLM(decoder, EvePatchEmbedding(4, 2, 8, 16, heads=2))


def answers(model: EncoderFreeVLM, rows: list[list[Sample]], sampling: Sampling) -> list[list[int]]:
    return generate(model, pack(rows, model.patch_embedding.layout, slots=32), sampling)


def greedy_by_full_forward(model: EncoderFreeVLM, prompt: Sample, steps: int) -> list[int]:
    ids: list[int] = []
    for _ in range(steps):
        batch = pack([[Sample([*prompt.parts, ids])]], model.patch_embedding.layout, slots=32)
        last = int((batch.segment_ids[0] == 1).sum()) - 1
        token = int(model.language_model.logits(model(batch).hidden[0, last]).argmax())
        if token == END:
            break
        ids.append(token)
    return ids


def test_batched_answers_are_those_of_the_full_forward_pass() -> None:
    model = tiny()
    packed = answers(model, [PROMPTS[:2], PROMPTS[2:]], Sampling(6, END))
    assert packed == [greedy_by_full_forward(model, prompt, 6) for prompt in PROMPTS]
    assert len({tuple(answer) for answer in packed}) == len(PROMPTS)


@pytest.mark.parametrize(
    "sampling", [Sampling(6, END), Sampling(6, END, temperature=2.0, top_p=0.9)]
)
def test_one_prompt_at_a_time_gives_the_same(sampling: Sampling) -> None:
    model, layout = tiny(), tiny().patch_embedding.layout
    together = answers(model, [PROMPTS[:2], PROMPTS[2:]], sampling)
    alone = [
        generate(model, pack([[prompt]], layout, slots=32), sampling, seeds=[number])[0]
        for number, prompt in enumerate(PROMPTS)
    ]
    assert together == alone


def test_tokens_are_drawn_as_often_as_they_are_likely() -> None:
    model, sampling = tiny(), Sampling(1, END, temperature=1.5, top_p=0.7)
    layout = model.patch_embedding.layout
    batch = pack([[PROMPTS[3]]], layout, slots=32)
    scores = model.language_model.logits(model(batch).hidden[0, 0]).detach() / 1.5
    order = scores.softmax(0).argsort(descending=True)
    before = scores.softmax(0)[order].cumsum(0) - scores.softmax(0)[order]
    kept = order[before < 0.7]
    expected = torch.zeros(40).index_copy(0, kept, scores[kept].softmax(0))
    rows = pack([[PROMPTS[3]]] * 4000, layout, slots=1)
    drawn = [answer[0] if answer else END for answer in generate(model, rows, sampling)]
    share = torch.tensor(drawn).bincount(minlength=40) / 4000
    assert float((share - expected).abs().max()) < 4 * 0.5 / 4000**0.5  # four standard deviations


def test_a_streamer_is_told_every_token_and_the_end() -> None:
    class Told(BaseStreamer):
        def __init__(self) -> None:
            self.ids: list[int] = []
            self.ended = False

        def put(self, value: torch.Tensor) -> None:
            self.ids += value.flatten().tolist()

        def end(self) -> None:
            self.ended = True

    model, told = tiny(), Told()
    batch = pack([[PROMPTS[0]]], model.patch_embedding.layout, slots=32)
    ids = generate(model, batch, Sampling(6, END), streamer=told)[0]
    assert told.ended
    assert [token for token in told.ids if token != END] == ids


def test_an_answer_stops_at_the_end_token_and_the_others_go_on() -> None:
    model = tiny()
    free = answers(model, [PROMPTS], Sampling(6, END))
    end = free[0][2]
    stopped = answers(model, [PROMPTS], Sampling(6, end))
    assert stopped[0] == free[0][: free[0].index(end)]
    assert stopped == [a[: a.index(end)] if end in a else a for a in free]


def test_drawing_is_repeated_by_its_seed_and_leaves_the_random_state_alone() -> None:
    model = tiny()
    before = torch.random.get_rng_state()
    one, again, other = (
        answers(model, [PROMPTS], Sampling(6, END, temperature=2.0, seed=seed))
        for seed in (1, 1, 2)
    )
    assert one == again != other
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_tiny_top_p_draws_the_likeliest_token() -> None:
    model = tiny()
    likeliest = answers(model, [PROMPTS], Sampling(6, END))
    assert likeliest == answers(model, [PROMPTS], Sampling(6, END, temperature=3.0, top_p=1e-6))


def test_settings_published_with_a_model_do_not_change_answers() -> None:
    model = tiny()
    plain = answers(model, [PROMPTS], Sampling(6, END))
    published = model.language_model.model.generation_config
    published.repetition_penalty = 50.0
    published.suppress_tokens = plain[0][:1]
    assert answers(model, [PROMPTS], Sampling(6, END)) == plain
    assert model.language_model.model.generation_config is published


def test_every_part_returns_to_its_mode() -> None:
    model = tiny()
    model.train()
    model.patch_embedding.eval()
    answers(model, [PROMPTS[:1]], Sampling(1, END))
    assert model.training
    assert not model.patch_embedding.training


def test_no_prompt_gives_no_answer() -> None:
    assert answers(tiny(), [[]], Sampling(1, END)) == []


def test_an_answer_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match=r"more than the decoder's 16 positions\. Use a"):
        answers(tiny(max_positions=16), [PROMPTS], Sampling(9, END))


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"max_new_tokens": 0}, "at least one token"),
        ({"temperature": -1.0}, "give 0 for the likeliest"),
        ({"temperature": 1.0, "top_p": 0.0}, "above 0 and at most 1"),
        ({"top_p": 0.5}, "Give a positive temperature"),
    ],
)
def test_impossible_sampling_is_refused(numbers: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sampling(**{"max_new_tokens": 1, "end_token": END, **numbers})  # type: ignore[arg-type]
