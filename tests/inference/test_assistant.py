"""Answers do not depend on their neighbours; what cannot be asked is refused in words."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lit_eve.inference import assistant as module
from lit_eve.inference.assistant import Answer, Assistant, Decoding, Question, ask
from lit_eve_data.disk.records import StoredImage
from tests.inference.tiny import picture, tiny_assistant

GREEDY, DRAWN = Decoding(8), Decoding(8, temperature=1.3, top_p=0.9)
QUESTIONS = [
    ask("Read it.", [picture(16, 24, 1)], seed=5),
    ask("Nothing to see.", seed=6),
    ask("<image> against <image>?", [picture(16, 16, 2), picture(40, 16, 3)], seed=7),
    ask("What?", [picture(64, 32, 4)], seed=8),
    ask("And a somewhat longer question, in several words.", [picture(16, 16, 5)], seed=9),
]


@pytest.fixture(scope="module")
def assistant() -> Assistant:
    return tiny_assistant()


@pytest.mark.parametrize("decoding", [GREEDY, DRAWN])
def test_batched_answers_are_those_of_one_at_a_time(
    assistant: Assistant, decoding: Decoding, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = [next(assistant.answers([question], decoding)) for question in QUESTIONS]
    together = list(assistant.answers(QUESTIONS, decoding))
    monkeypatch.setattr(module, "WINDOW", 2)
    in_windows = list(replace(assistant, slots=120).answers(iter(QUESTIONS), decoding))
    assert together == alone == in_windows
    assert len({answer.text for answer in alone}) == len(QUESTIONS)


def test_batches_keep_to_their_slots_and_leave_nobody_out(assistant: Assistant) -> None:
    lengths = [5, 90, 7, 30, 31, 8]
    batches = replace(assistant, slots=100).batches(lengths, Decoding(10))
    assert sorted(n for batch in batches for n in batch) == list(range(6))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * (max(lengths[n] for n in batch) + 10) <= 100
    assert batches == [[1], [4, 3], [5, 2, 0]]


@pytest.mark.parametrize("decoding", [GREEDY, DRAWN])
def test_streamed_words_are_the_answer(assistant: Assistant, decoding: Decoding) -> None:
    for question in QUESTIONS:
        told: list[str] = []
        answer = assistant.stream(question, decoding, told.append)
        assert "".join(told) == answer.text
        assert answer == next(assistant.answers([question], decoding))


def test_progress_is_told(assistant: Assistant) -> None:
    told: list[tuple[int, int]] = []
    list(assistant.answers(QUESTIONS, Decoding(1), lambda done, of: told.append((done, of)), 5))
    assert told[-1] == (5, 5)


def test_a_cut_off_answer_says_so() -> None:
    assert Answer("abc", 3, finished=False) != Answer("abc", 3, finished=True)
    answer = next(tiny_assistant().answers([QUESTIONS[0]], Decoding(3)))
    assert (answer.tokens, answer.finished) == (3, False)


def test_an_earlier_turn_changes_the_answer(assistant: Assistant) -> None:
    turns = [
        {"role": "user", "content": "<image>\nRead it."},
        {"role": "assistant", "content": "4"},
        {"role": "user", "content": "Sure?"},
    ]
    talk = Question(turns, [picture(16, 24, 1)])
    one, other = assistant.answers([talk, ask("Sure?", [picture(16, 24, 1)])], GREEDY)
    assert one != other


@pytest.mark.parametrize(
    ("question", "message"),
    [
        (ask("<image> and <image>", [picture(16, 16)], name="p:3"), r"p:3: no image for <image>"),
        (ask("<image>"), r"1 placeholder and came with no pictures\. Add a picture"),
        (
            Question([{"role": "user", "content": "So?"}], [picture(16, 16)]),
            r"1 picture but has only no placeholders <image>.*or nowhere",
        ),
        (ask("So?", [picture(160, 160)], name="p:4"), r"p:4: the prompt has \d+ tokens, 4\d\d of"),
        (ask("x" * 300), r"above the 256 positions of the model\. Use a smaller picture"),
        (Question([{"role": "assistant", "content": "4"}]), "must alternate"),
        (ask("So?", [StoredImage(16, 16, "raw", b"")], name="p"), "p: a picture cannot be decoded"),
    ],
)
def test_what_cannot_be_asked_is_refused(
    assistant: Assistant, question: Question, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        next(assistant.answers([question], GREEDY))


def test_settings_that_would_be_ignored_are_refused() -> None:
    with pytest.raises(ValueError, match="Give a positive temperature"):
        Decoding(top_p=0.5).checked()
