"""A conversation in the terminal: words as they come, pictures by their files."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from lit_eve.chat.talk import SILENCE, Talk
from lit_eve.inference.assistant import Assistant, Decoding
from lit_eve.inference.requests import read_picture
from lit_eve_data.disk.records import StoredImage

COMMANDS = "/image FILE shows a picture with your next words, /new starts over, /quit ends"


class Chat:
    """Reads lines and answers them until there are no more.

    Args:
        assistant: the model.
        decoding: how it chooses tokens.
        console: what the user sees.
        read: gives the next line; raises EOFError when there are no more.
        seed: of the first answer; the next ones count on.
    """

    def __init__(
        self,
        assistant: Assistant,
        decoding: Decoding,
        console: Console,
        read: Callable[[str], str] = input,
        seed: int = 0,
    ) -> None:
        self.assistant, self.decoding, self.console = assistant, decoding, console
        self._read, self._seed = read, seed
        self.talk = Talk()
        self.shown: list[StoredImage] = []

    def run(self) -> None:
        """Talk until `/quit` or the end of the input."""
        self._note(COMMANDS)
        while True:
            try:
                line = self._read("you    ").strip()
            except (EOFError, KeyboardInterrupt):
                self.console.print()
                return
            if line == "/quit":
                return
            try:
                self.take(line)
            except ValueError as error:  # a picture or a question that cannot be used
                self.console.print(f"error  {error}", style="red", markup=False, highlight=False)

    def take(self, line: str) -> None:
        """Do what one line says.

        Raises:
            ValueError: in words for the user; the conversation stays as it was.
        """
        command, _, rest = line.partition(" ")
        if command == "/image":
            self.show(rest)
        elif command == "/new":
            self.talk, self.shown = Talk(), []
            self._note("a new conversation")
        elif command.startswith("/"):
            raise ValueError(f"there is no command {command}: {COMMANDS}.")
        elif line:
            self.answer(line)

    def show(self, named: str) -> None:
        """Keep picture files for the next question."""
        try:
            names = shlex.split(named)
        except ValueError as error:
            raise ValueError(f"{named} has a quotation mark without its other half.") from error
        if not names:
            raise ValueError("/image needs the path of a picture.")
        self.shown += [read_picture(Path(name).expanduser()) for name in names]
        grids = [self.assistant.encoder.cutter.num_tokens(i.height, i.width) for i in self.shown]
        self._note(f"{len(self.shown)} shown with your next words: {sum(grids)} visual tokens")

    def answer(self, text: str) -> None:
        """Ask, and print the answer as it comes; interrupted, it is as if never asked."""
        question = self.talk.question(text, self.shown, self._seed)
        self.console.print("model  ", end="", style="bold")
        try:
            answer = self.assistant.stream(question, self.decoding, self._write)
        except KeyboardInterrupt:
            self.console.print()
            self._note("stopped; the question is taken back")
            return
        except ValueError:
            self.console.print("-")
            raise
        self.console.print()
        if not answer.text.strip():
            self._note(SILENCE)
        if not answer.finished:
            self._note(f"cut off after {answer.tokens} tokens")
        self.talk, self.shown = Talk.after(question, answer), []
        self._seed += 1

    def _write(self, words: str) -> None:
        self.console.print(words, end="", markup=False, highlight=False, soft_wrap=True)
        self.console.file.flush()

    def _note(self, text: str) -> None:
        self.console.print(text, style="dim", markup=False, highlight=False)
