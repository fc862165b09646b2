"""A conversation on a page of one's own machine, with what the model sees beside it (Gradio).

What visitors upload is kept in a folder of the server's own that is deleted in the end; only files
of a few formats and of a bounded size are taken, by what is in them.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gradio
from PIL import Image

from lit_eve.chat.drawing import boxes_in, seen, told
from lit_eve.chat.talk import SILENCE, Talk, words
from lit_eve.inference.assistant import Answer, Assistant, Decoding
from lit_eve.inference.requests import stored
from lit_eve.metrics.answers import Box
from lit_eve_data.disk.records import StoredImage

ENDINGS = [".png", ".jpg", ".jpeg", ".webp"]
MOST_BYTES = 10_000_000
NO_PICTURE = "no picture: text alone"
_VARIABLE = "GRADIO_TEMP_DIR"


@dataclass(frozen=True)
class Visit:
    """What the page knows of one visitor."""

    talk: Talk = field(default_factory=Talk)
    shown: StoredImage | None = None
    """The picture above."""
    fresh: bool = False
    """Whether it has not been asked about yet."""
    boxes: tuple[Box, ...] = ()


@dataclass(frozen=True)
class Page:
    """The functions behind the page.

    Args:
        assistant: the model.
        decoding: how it chooses tokens.
        folder: where uploads are; nothing outside it is read.
        seed: of the first answer of a conversation; the next ones count on.
    """

    assistant: Assistant
    decoding: Decoding
    folder: Path
    seed: int = 0

    def show(self, file: str | None, grid: bool, visit: Visit) -> tuple[Any, str, Visit]:
        """A picture was uploaded, or taken away."""
        if file is None:
            return None, NO_PICTURE, Visit(visit.talk)
        shown = Visit(visit.talk, self.read(Path(file)), fresh=True)
        return self.picture(shown, grid), told(_image(shown), self._cutter), shown

    def read(self, file: Path) -> StoredImage:
        """An uploaded file as a picture.

        Raises:
            gradio.Error: in words for the visitor, if it is none, too large or not an upload.
        """
        path = file.resolve()
        if not path.is_relative_to(self.folder.resolve()):
            raise gradio.Error("this file was not uploaded here.")
        if path.suffix.lower() not in ENDINGS:
            raise gradio.Error(f"a picture ends in {', '.join(ENDINGS)}.")
        if path.stat().st_size > MOST_BYTES:
            raise gradio.Error(f"pictures have at most {MOST_BYTES // 10**6} MB.")
        try:
            return stored(path.read_bytes(), "this file")
        except ValueError as error:
            raise gradio.Error(str(error)) from error

    def picture(self, visit: Visit, grid: bool) -> Image.Image | None:
        """The visitor's picture with what there is to see on it."""
        if visit.shown is None:
            return None
        return seen(_image(visit), self._cutter, list(visit.boxes), grid)

    def ask(
        self, text: str, history: list[Any], grid: bool, visit: Visit
    ) -> Iterator[tuple[str, list[Any], Any, Visit]]:
        """Answer, word by word; regions are drawn when the answer is whole."""
        if not text.strip():
            raise gradio.Error("write a question first.")
        shown = [visit.shown] if visit.fresh and visit.shown is not None else []
        seed = self.seed + len(visit.talk.turns) // 2
        question = visit.talk.question(text.strip(), shown, seed)
        said = [*history, {"role": "user", "content": text}]
        answer = ""
        try:
            for piece in words(self.assistant, question, self.decoding):
                if isinstance(piece, Answer):
                    talk, boxes = Talk.after(question, piece), tuple(boxes_in(piece.text))
                    visit = Visit(talk, visit.shown, boxes=boxes)
                    answer = piece.text.strip() or SILENCE
                else:
                    answer += piece
                spoken = [*said, {"role": "assistant", "content": answer}]
                yield "", spoken, self.picture(visit, grid), visit
        except ValueError as error:
            raise gradio.Error(str(error)) from error

    def start_over(self, visit: Visit) -> tuple[list[Any], Visit]:
        """Forget what was said, keep the picture."""
        return [], Visit(Talk(), visit.shown, visit.shown is not None)

    def blocks(self, title: str) -> gradio.Blocks:
        """The page."""
        page: gradio.Blocks
        with gradio.Blocks(title=title, analytics_enabled=False, delete_cache=(600, 3600)) as page:
            gradio.Markdown(f"## {title}")
            visit = gradio.State(Visit())
            with gradio.Row():
                with gradio.Column(scale=2):
                    upload = gradio.File(label="Picture", file_types=ENDINGS, height=110)
                    view = gradio.Image(
                        label="What the model sees", format="png", interactive=False, buttons=[]
                    )
                    about = gradio.Markdown(NO_PICTURE)
                    grid = gradio.Checkbox(label="Grid of visual tokens", value=True)
                with gradio.Column(scale=3):
                    talk = gradio.Chatbot(
                        label="Conversation",
                        height=420,
                        render_markdown=False,
                        buttons=["copy"],  # by default one that sends it to strangers, too
                    )
                    text = gradio.Textbox(label="Question", autofocus=True, max_length=4000)
                    over = gradio.Button("New conversation", size="sm")
            upload.change(
                self.show, [upload, grid, visit], [view, about, visit], api_visibility="private"
            )
            grid.change(self.picture, [visit, grid], view, api_visibility="private")
            for forget in (over.click, talk.clear):
                forget(self.start_over, visit, [talk, visit], api_visibility="private")
            text.submit(
                self.ask,
                [text, talk, grid, visit],
                [text, talk, view, visit],
                api_visibility="private",
                concurrency_limit=1,
            )
        return page

    @property
    def _cutter(self) -> Any:
        return self.assistant.encoder.cutter


@contextmanager
def serving(
    page: Callable[[Path], Page], title: str, host: str = "127.0.0.1", port: int | None = None
) -> Iterator[str]:
    """The page, served inside; its address. What was uploaded is deleted in the end.

    Args:
        page: from the folder of uploads to the page's functions.
        title: what stands above it.
        host: whom it answers; 0.0.0.0 is all.
        port: a free one if None.
    """
    before = os.environ.get(_VARIABLE)
    with tempfile.TemporaryDirectory(prefix="lit-eve-chat-") as folder:
        os.environ[_VARIABLE] = folder
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        blocks = page(Path(folder)).blocks(title)
        fonts = ["system-ui", "sans-serif"]
        try:
            _, url, _ = blocks.launch(
                server_name=host,
                server_port=port,
                max_file_size=MOST_BYTES,
                theme=gradio.themes.Default(font=fonts, font_mono=["monospace"]),
                footer_links=[],
                share=False,
                ssr_mode=False,
                quiet=True,
                prevent_thread_lock=True,
            )
            yield url
        finally:
            blocks.close(verbose=False)
            os.environ.pop(_VARIABLE)
            if before is not None:
                os.environ[_VARIABLE] = before


def _image(visit: Visit) -> Image.Image:
    assert visit.shown is not None
    return Image.fromarray(visit.shown.pixels())
