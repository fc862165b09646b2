"""A conversation as a value: what was said, the pictures that were shown, the next question."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from queue import Queue
from threading import Thread

from lit_eve.inference.assistant import Answer, Assistant, Decoding, Question, user_turn
from lit_eve_data.disk.records import StoredImage, Turn

SILENCE = "(the model said nothing)"
"""What is shown for an answer without words, which a model that learnt little may give."""


@dataclass(frozen=True)
class Talk:
    """What was said so far; another one comes of every answer."""

    turns: tuple[Turn, ...] = ()
    images: tuple[StoredImage, ...] = ()

    def question(self, text: str, images: Sequence[StoredImage] = (), seed: int = 0) -> Question:
        """What the model is asked next, with pictures that are shown now."""
        turn = user_turn(text, len(images))
        return Question((*self.turns, turn), (*self.images, *images), seed)

    @staticmethod
    def after(question: Question, answer: Answer) -> Talk:
        """The conversation that a question and its answer make."""
        said: Turn = {"role": "assistant", "content": answer.text}
        return Talk((*question.turns, said), tuple(question.images))


def words(assistant: Assistant, question: Question, decoding: Decoding) -> Iterator[str | Answer]:
    """An answer piece by piece as the model writes it, and the whole of it in the end.

    Raises:
        ValueError: if the question cannot be put.
    """
    pieces: Queue[str | Answer | BaseException] = Queue()

    def answer() -> None:
        try:
            pieces.put(assistant.stream(question, decoding, pieces.put))
        except BaseException as error:  # belongs to whoever waits for the words
            pieces.put(error)

    Thread(target=answer, daemon=True).start()
    while True:
        piece = pieces.get()
        if isinstance(piece, BaseException):
            raise piece
        yield piece
        if isinstance(piece, Answer):
            return
