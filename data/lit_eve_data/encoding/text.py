"""Conversations to token ids: which tokens there are, how turns are marked, what is supervised.

A conversation reads `first U1 answer begin A1 end following U2 answer begin A2 end`. Only the
answers with `begin` and `end` are supervised. Every prompt and answer is tokenised on its own, so
the ids of a prompt are the same whether its answer is known or still to be generated; all are those
of the whole text, which is what published models were trained on.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tokenizers import Tokenizer

from lit_eve_data.disk.records import IMAGE, TEXT, Turn

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_CACHED = 50_000  # segments remembered; synthetic questions repeat, real text does not
MARKERS = "chat.json"
"""Beside a tokenizer: the words around the turns."""


@dataclass(frozen=True)
class ChatFormat:
    """The text that stands around the turns."""

    first: str
    """Before the first user turn, when there is no system turn."""
    answer: str
    """Between a user's words and the assistant's: a prompt ends with it."""
    end: str
    """After the assistant's words: the model learns to write it, and generation stops at it."""
    following: str
    """Between `end` and the next user turn."""
    system: tuple[str, str] | None = None
    """Before and after the system's words; the first user's words follow. None: no system turns."""
    begin: str = ""
    """Before the assistant's words and learnt with them: a space that is in one token with the word
    after it, so that a prompt must not end with it."""


PLAIN = ChatFormat(
    first="<user>",
    answer="<assistant>",
    end="<end>",
    following="<user>",
    system=("<system>", "<user>"),
)
"""The format of tokenizers made here: every marker is one token."""


@dataclass(frozen=True)
class Encoded:
    """A conversation as tokens; where images stand there are padding ids, replaced by the model."""

    ids: list[int]
    answers: list[tuple[int, int]]
    """Start and stop of the supervised spans."""
    images: list[tuple[int, int]]
    """Start and stop of the visual tokens of each image."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def supervised(self) -> list[bool]:
        """For every token whether it is supervised."""
        mask = [False] * len(self.ids)
        for start, stop in self.answers:
            mask[start:stop] = [True] * (stop - start)
        return mask


@dataclass
class ChatText:
    """A tokenizer together with its chat format.

    Args:
        tokenizer: the fast tokenizer.
        format: the markers, as text that `tokenizer` turns into its special tokens.
        pad_id: fills the rows and the places of images.
        template: the Jinja template that says the same as `format`, for other programs.
    """

    tokenizer: Tokenizer
    format: ChatFormat
    pad_id: int
    template: str
    _plain: Tokenizer = field(init=False, repr=False)
    _special: re.Pattern[str] = field(init=False, repr=False)
    _known: dict[str, list[int]] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        added = self.tokenizer.get_added_tokens_decoder().values()
        special = [re.escape(token.content) for token in added if token.special]
        self._special = re.compile("|".join(special) if special else r"(?!)")
        self._plain = Tokenizer.from_str(self.tokenizer.to_str())
        self._plain.encode_special_tokens = True

    @property
    def num_tokens(self) -> int:
        """Size of the vocabulary, special tokens included."""
        return int(self.tokenizer.get_vocab_size(with_added_tokens=True))

    @property
    def end_id(self) -> int:
        """The token generation stops at."""
        return self._ids(self.format.end)[0]

    def fingerprint(self) -> str:
        """Changes with everything the number of tokens of a text depends on."""
        about = json.dumps([self.tokenizer.to_str(), asdict(self.format)], sort_keys=True)
        return hashlib.sha256(about.encode()).hexdigest()[:12]

    def encode(self, turns: Sequence[Turn], visual_tokens: Sequence[int]) -> Encoded:
        """A whole conversation: (system,) user, assistant, user, assistant, ...

        A single turn of the role `text` is learnt as it stands, all of it supervised.

        Args:
            turns: `{"role": ..., "content": ...}`, with a placeholder for each image.
            visual_tokens: how many tokens each image becomes.

        Raises:
            ValueError: if the turns do not alternate, do not end with the assistant, or hold
                another number of placeholders than there are images.
        """
        encoded, answered = self._conversation(turns, visual_tokens)
        if not answered:
            raise ValueError("the last turn is the user's: there is no answer to learn from.")
        return encoded

    def prompt(self, turns: Sequence[Turn], visual_tokens: Sequence[int]) -> Encoded:
        """A conversation up to where the assistant speaks next; the last turn is the user's.

        Earlier answers are part of it and are marked as in `encode`.
        """
        encoded, answered = self._conversation(turns, visual_tokens)
        if answered:
            raise ValueError("the last turn is the assistant's: a prompt ends with the user's.")
        return encoded

    def words(self, content: str) -> list[int]:
        """Ids of what the assistant begins to say after a prompt."""
        return self._segment(self.format.begin, content, "", behind=self.format.answer)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of generated ids, up to the first end token, without special tokens."""
        words = list(ids)
        if self.end_id in words:
            words = words[: words.index(self.end_id)]
        return str(self.tokenizer.decode(words, skip_special_tokens=True)).strip()

    def _conversation(
        self, turns: Sequence[Turn], visual_tokens: Sequence[int]
    ) -> tuple[Encoded, bool]:
        """All turns, and whether the last of them is an answer."""
        encoded = Encoded([], [], [])
        if len(turns) == 1 and turns[0]["role"] == TEXT:
            encoded.ids.extend(self._segment("", turns[0]["content"], self.format.end))
            encoded.answers.append((0, len(encoded.ids)))
            return encoded, True
        system, pairs = self._paired(turns)
        for number, (prompt, answer) in enumerate(pairs):
            self._add_prompt(encoded, system, number, prompt, visual_tokens)
            if answer is not None:
                start, form = len(encoded.ids), self.format
                said = self._segment(form.begin, answer, form.end, behind=form.answer)
                encoded.ids.extend(said)
                encoded.answers.append((start, len(encoded.ids)))
        if len(encoded.images) != len(visual_tokens):
            raise ValueError(
                f"{len(visual_tokens)} images but {len(encoded.images)} {IMAGE} placeholders in "
                "user turns: each image needs one."
            )
        return encoded, pairs[-1][1] is not None

    def _add_prompt(
        self,
        encoded: Encoded,
        system: str | None,
        number: int,
        prompt: str,
        visual_tokens: Sequence[int],
    ) -> None:
        """Append a user turn, with the markers around it, up to where the answer begins."""
        before = self.format.first if number == 0 else self.format.following
        if number == 0 and system is not None:
            if self.format.system is None:
                raise ValueError("this chat format has no system turn: remove it from the data.")
            opening, before = self.format.system
            if self._special.search(system) is None:
                before = opening + system + before
            else:
                encoded.ids.extend(self._segment(opening, system, ""))
        behind = self.format.end if number else ""
        pieces = prompt.split(IMAGE)
        for place, piece in enumerate(pieces):
            last = place == len(pieces) - 1
            after = self.format.answer if last else ""
            around = (before, piece, after, behind) if place == 0 else ("", piece, after)
            encoded.ids.extend(self._segment(*around))
            if not last and len(encoded.images) < len(visual_tokens):
                start = len(encoded.ids)
                encoded.ids.extend([self.pad_id] * visual_tokens[len(encoded.images)])
                encoded.images.append((start, len(encoded.ids)))
            elif not last:
                raise ValueError(f"more {IMAGE} placeholders than images ({len(visual_tokens)}).")

    def _segment(self, before: str, content: str, after: str, behind: str = "") -> list[int]:
        """Ids of markers and content, where they stand behind another marker.

        Content that spells a special token stays plain text.
        """
        if self._special.search(content) is None:
            return self._behind(behind, before + content + after)
        inner: list[int] = self._plain.encode(content, add_special_tokens=False).ids
        return [*self._behind(behind, before), *inner, *self._ids(after)]

    def _behind(self, marker: str, text: str) -> list[int]:
        """Ids of a text that goes on behind a marker: some tokenizers begin a text differently."""
        start, whole = self._ids(marker), self._ids(marker + text)
        return whole[len(start) :] if whole[: len(start)] == start else self._ids(text)

    def _ids(self, text: str) -> list[int]:
        ids = self._known.get(text)
        if ids is None:
            ids = self.tokenizer.encode(text, add_special_tokens=False).ids
            if len(self._known) >= _CACHED:
                self._known.clear()
            self._known[text] = ids
        return ids

    @staticmethod
    def _paired(turns: Sequence[Turn]) -> tuple[str | None, list[tuple[str, str | None]]]:
        """The system's words and (user, assistant) pairs; the last answer may be missing."""
        system = turns[0]["content"] if turns and turns[0]["role"] == "system" else None
        rest = turns if system is None else turns[1:]
        wanted = ("user", "assistant")
        if not rest or any(turn["role"] != wanted[n % 2] for n, turn in enumerate(rest)):
            raise ValueError(
                f"turns {[turn['role'] for turn in turns]}: they must alternate between user and "
                "assistant, starting with the user (after at most one system turn)."
            )
        words: list[str | None] = [turn["content"] for turn in rest]
        return system, list(zip_longest(words[::2], words[1::2]))  # type: ignore[arg-type]

    def save(self, directory: Path) -> None:
        """Write what `load` and `transformers.AutoTokenizer` read."""
        directory.mkdir(parents=True, exist_ok=True)
        self.transformers().save_pretrained(directory)
        self.tokenizer.save(str(directory / "tokenizer.json"))
        about = json.dumps(self.about(), indent=1, ensure_ascii=False)
        (directory / MARKERS).write_text(about)

    def about(self) -> dict[str, Any]:
        """All but the tokenizer itself, as plain keys and values; `of` takes it back."""
        return {"format": asdict(self.format), "pad_id": self.pad_id, "template": self.template}

    @classmethod
    def of(cls, tokenizer: Tokenizer, about: Mapping[str, Any]) -> Self:
        """The reverse of `about`."""
        options = dict(about["format"])
        system = options.pop("system")
        form = ChatFormat(**options, system=None if system is None else tuple(system))
        return cls(tokenizer, form, about["pad_id"], about["template"])

    @classmethod
    def load(cls, directory: Path) -> Self:
        """What `save` wrote, without importing transformers.

        Raises:
            ValueError: if the directory holds no saved chat tokenizer.
        """
        if not (directory / MARKERS).is_file():
            raise ValueError(
                f"{directory} holds no {MARKERS}: it is not a text tokenizer saved by ChatText. "
                "Name the directory that was written when the data was prepared."
            )
        about = json.loads((directory / MARKERS).read_text())
        return cls.of(Tokenizer.from_file(str(directory / "tokenizer.json")), about)

    def transformers(self) -> PreTrainedTokenizerBase:
        """The same tokenizer for Hugging Face's programs, chat template included."""
        from transformers import PreTrainedTokenizerFast

        end = self.tokenizer.id_to_token(self.end_id)
        pad = self.tokenizer.id_to_token(self.pad_id)
        return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
            tokenizer_object=self.tokenizer,
            eos_token=end,
            pad_token=pad,
            chat_template=self.template,
            clean_up_tokenization_spaces=False,
        )

    def __getstate__(self) -> dict[str, Any]:
        """Workers start with an empty memory."""
        return {
            "tokenizer": self.tokenizer.to_str(),
            "about": (self.format, self.pad_id, self.template),
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(Tokenizer.from_str(state["tokenizer"]), *state["about"])  # type: ignore[misc]


def texts_of(turns: Iterable[Turn]) -> Iterable[str]:
    """The words of a conversation, without placeholders."""
    return (turn["content"].replace(IMAGE, " ") for turn in turns)
