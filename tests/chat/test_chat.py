"""Conversations: turns that build on each other, commands, what is drawn on a picture."""

from __future__ import annotations

import io
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from lit_eve.chat.drawing import REGION, boxes_in, seen, told
from lit_eve.chat.talk import Talk, words
from lit_eve.chat.terminal import Chat
from lit_eve.cli.use import _serve
from lit_eve.inference.assistant import Answer, Assistant, Decoding, Question
from lit_eve.metrics.answers import Box
from lit_eve_data.batches import ImageLayout
from lit_eve_data.disk.records import StoredImage
from lit_eve_data.encoding.images import ImageCutter, Native
from tests.inference.tiny import picture, tiny_assistant, write_picture

SHORT = Decoding(5)


@pytest.fixture(scope="module")
def assistant() -> Assistant:
    return tiny_assistant()


def lines(*said: str) -> Callable[[str], str]:
    waiting = iter(said)

    def read(prompt: str) -> str:
        try:
            return next(waiting)
        except StopIteration:
            raise EOFError from None

    return read


def talked(assistant: Assistant, *said: str) -> tuple[Chat, str]:
    console = Console(file=io.StringIO(), width=200)
    chat = Chat(assistant, SHORT, console, lines(*said))
    chat.run()
    assert isinstance(console.file, io.StringIO)
    return chat, console.file.getvalue()


def test_every_question_stands_behind_what_was_said(assistant: Assistant, tmp_path: Path) -> None:
    file = write_picture(tmp_path / "a b.png")
    chat, said = talked(assistant, f"/image '{file}'", "What?", "", "Sure?", "/quit", "never")
    roles = [turn["role"] for turn in chat.talk.turns]
    assert roles == ["user", "assistant"] * 2
    assert chat.talk.turns[0]["content"] == "<image>\nWhat?"
    assert chat.talk.turns[2]["content"] == "Sure?"
    question = Question(chat.talk.turns[:3], chat.talk.images, seed=1)
    answer = next(assistant.answers([question], SHORT))
    assert chat.talk.turns[3]["content"] == answer.text
    assert answer.text in said
    assert "9 visual tokens" in said  # 2 x 3 windows, one mark before them, two behind rows


def test_a_new_conversation_forgets(assistant: Assistant, tmp_path: Path) -> None:
    file = write_picture(tmp_path / "a.png")
    chat, _ = talked(assistant, f"/image {file}", "What?", f"/image {file}", "/new")
    assert (chat.talk, chat.shown) == (Talk(), [])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/image none.png", "none.png cannot be read"),
        ("/image", "needs the path"),
        ("/image 'a b.png", "'a b.png has a quotation mark without its other half"),
        ("/picture x", "there is no command /picture"),
        ("<image>?", "no image for <image>"),
        ("x" * 300, "above the 256 positions"),
    ],
)
def test_what_cannot_be_done_is_told_and_the_talk_goes_on(
    assistant: Assistant, line: str, message: str
) -> None:
    chat, said = talked(assistant, "Hello.", line)
    assert message in said
    assert len(chat.talk.turns) == 2


def test_an_answer_without_words_is_told(
    assistant: Assistant, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = Answer("", 0, finished=True)
    monkeypatch.setattr(Assistant, "stream", lambda *_: nothing)
    chat, said = talked(assistant, "What?")
    assert "(the model said nothing)" in said
    assert chat.talk.turns[1]["content"] == ""


def test_words_come_before_the_answer_and_make_it(assistant: Assistant) -> None:
    question = Talk().question("What?", [picture(16, 24)])
    *pieces, whole = words(assistant, question, SHORT)
    assert isinstance(whole, Answer)
    assert "".join(map(str, pieces)) == whole.text
    with pytest.raises(ValueError, match="above the 256 positions"):
        list(words(assistant, Talk().question("x" * 300), SHORT))


@pytest.mark.parametrize(
    ("text", "boxes"),
    [
        ("0.125 0.25 0.5 1", [Box(0.125, 0.25, 0.5, 1)]),
        ("At [0, 0, 0.5, 0.5] and (.5,.5,1.0,1.0).", [Box(0, 0, 0.5, 0.5), Box(0.5, 0.5, 1, 1)]),
        ("0.5 0.5 0.1 0.9", []),
        ("3 7 1 0", []),
        ("1.5 0.2 0.3 0.4", []),
        ("no numbers", []),
    ],
)
def test_boxes_are_read_from_an_answer(text: str, boxes: list[Box]) -> None:
    assert boxes_in(text) == boxes


CUTTER = ImageCutter(ImageLayout(4, 2, cls=True, row_end=True), Native(), (0.5,) * 3, (0.5,) * 3)
FIXED = ImageCutter(ImageLayout(4, 2, False, False, fixed=9), Native(), (0.5,) * 3, (0.5,) * 3)


def test_grid_and_regions_lie_where_they_belong() -> None:
    black = Image.new("RGB", (16, 24))
    drawn = np.asarray(seen(black, CUTTER, [], grid=True)).max(2)  # (432, 288) at 18 times
    assert drawn.shape == (24 * 18, 16 * 18)
    assert np.flatnonzero(drawn[:, 5]).tolist() == [8 * 18, 16 * 18]
    assert np.flatnonzero(drawn[5]).tolist() == [8 * 18]
    assert not np.asarray(seen(black, CUTTER, [], grid=False)).any()
    assert not np.asarray(seen(black, FIXED, [], grid=True)).any()
    framed = np.asarray(seen(black, CUTTER, [Box(0.5, 0.5, 1, 1)], grid=False))
    rows, columns = np.nonzero(framed[..., 0] == REGION[0])
    assert (rows.min(), rows.max()) == (216, 431)
    assert (columns.min(), columns.max()) == (144, 287)


def test_a_picture_is_told_in_visual_tokens() -> None:
    said = told(Image.new("RGB", (16, 24)), CUTTER)
    assert said == (
        "16 x 24 pixels: 3 x 2 windows and 4 that mark its beginning and its rows, 10 visual tokens"
    )
    assert "always 9" in told(Image.new("RGB", (16, 24)), FIXED)


def test_the_page_takes_pictures_from_its_folder_only(
    assistant: Assistant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gradio = pytest.importorskip("gradio", reason="Gradio is not installed: extra `web`")
    from lit_eve.chat import page as module

    page = module.Page(assistant, SHORT, tmp_path / "in")
    good = write_picture(tmp_path / "in" / "a.png")
    assert isinstance(page.read(good), StoredImage)
    outside = write_picture(tmp_path / "b.png")
    (tmp_path / "in" / "link.png").symlink_to(outside)
    (tmp_path / "in" / "page.png").write_text("<svg/>")
    (tmp_path / "in" / "c.gif").write_bytes(good.read_bytes())
    for name, message in (
        ("../b.png", "not uploaded here"),
        ("link.png", "not uploaded here"),
        ("page.png", "this file is no picture"),
        ("c.gif", "ends in .png"),
    ):
        with pytest.raises(gradio.Error, match=message):
            page.read(tmp_path / "in" / name)
    monkeypatch.setattr(module, "MOST_BYTES", 10)
    with pytest.raises(gradio.Error, match="at most"):
        page.read(good)


def test_the_page_answers_and_draws_the_regions(
    assistant: Assistant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("gradio", reason="Gradio is not installed: extra `web`")
    from lit_eve.chat import page as module

    page = module.Page(assistant, SHORT, tmp_path)
    _, about, visit = page.show(str(write_picture(tmp_path / "a.png")), True, module.Visit())
    assert "9 visual tokens" in about
    *_, (_, history, _, visit) = page.ask("What?", [], True, visit)
    assert [turn["role"] for turn in history] == ["user", "assistant"]
    assert visit.talk.turns[0]["content"] == "<image>\nWhat?"
    boxed = Answer("0.1 0.1 0.9 0.9", 9, True)
    monkeypatch.setattr(module, "words", lambda *arguments: iter([boxed]))
    *_, (_, history, drawn, visit) = page.ask("Where?", history, False, visit)
    assert visit.talk.turns[2]["content"] == "Where?"  # the picture was shown before
    assert visit.boxes == (Box(0.1, 0.1, 0.9, 0.9),)
    assert (np.asarray(drawn)[..., 0] == REGION[0]).any()
    monkeypatch.setattr(module, "words", lambda *arguments: iter([Answer("", 0, True)]))
    *_, (_, history, _, _) = page.ask("Why?", history, False, visit)
    assert history[-1]["content"] == "(the model said nothing)"
    assert page.start_over(visit)[1] == module.Visit(Talk(), visit.shown, True)
    assert page.show(None, True, visit)[0] is None


def test_a_page_that_is_told_to_end_leaves_nothing_behind(
    assistant: Assistant, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("gradio", reason="Gradio is not installed: extra `web`")
    from lit_eve.chat import page

    left: list[str] = []

    @contextmanager
    def serving(*_: object) -> Iterator[str]:
        try:
            yield "http://here"
        finally:
            left.append("cleaned up")

    monkeypatch.setattr(page, "serving", serving)
    ending = partial(os.kill, os.getpid(), signal.SIGTERM)
    monkeypatch.setattr(threading.Event, "wait", lambda _: ending())
    before = signal.getsignal(signal.SIGTERM)
    try:
        _serve(assistant, SHORT, 0, ("127.0.0.1", None))
    finally:
        signal.signal(signal.SIGTERM, before)
    assert left == ["cleaned up"]
