"""Where a `ChatText` comes from: trained on the data, plain bytes, or a pretrained model's own."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from lit_eve_data.disk.records import IMAGE
from lit_eve_data.encoding.text import PLAIN, ChatFormat, ChatText

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PAD = "<pad>"
SPECIAL = (PAD, IMAGE, "<system>", "<user>", "<assistant>", "<end>")
SMALLEST = len(SPECIAL) + 256
"""Special tokens and one token for every byte: with these any text can be written."""
TEMPLATE = (
    "{% for turn in messages %}<{{ turn['role'] }}>{{ turn['content'] }}"
    "{% if turn['role'] == 'assistant' %}<end>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def train_text(texts: Iterable[str], vocabulary: int) -> ChatText:
    """A byte-level BPE learned from `texts`; digits are always tokens of their own.

    Args:
        texts: what to learn from, the same ones in the same order for the same tokenizer.
        vocabulary: tokens wanted at most, special ones included.

    Raises:
        ValueError: if `vocabulary` cannot hold the bytes and the special tokens.
    """
    if vocabulary < SMALLEST:
        raise ValueError(
            f"a vocabulary of {vocabulary} cannot hold 256 bytes and {len(SPECIAL)} special "
            f"tokens: use at least {SMALLEST}, or the type `bytes`."
        )
    tokenizer = _empty()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=_special_tokens(),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    with _one_thread():
        tokenizer.train_from_iterator(texts, trainer)
    return _chat(tokenizer)


def bytes_text() -> ChatText:
    """One token for each byte of UTF-8, and the special tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = {token: number for number, token in enumerate([*SPECIAL, *alphabet])}
    tokenizer = _empty(models.BPE(vocab=tokens, merges=[]))
    tokenizer.add_special_tokens(_special_tokens())
    return _chat(tokenizer)


def _empty(model: models.BPE | None = None) -> Tokenizer:
    tokenizer = Tokenizer(model or models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _special_tokens() -> list[AddedToken]:
    return [AddedToken(token, special=True, normalized=False) for token in SPECIAL]


def _chat(tokenizer: Tokenizer) -> ChatText:
    return ChatText(tokenizer, PLAIN, SPECIAL.index(PAD), TEMPLATE)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keep the tokenizer's thread pool asleep: a process that forks later would warn about it."""
    name = "TOKENIZERS_PARALLELISM"
    before = os.environ.get(name)
    os.environ[name] = "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def pretrained_text(source: str, template: str | None = None) -> ChatText:
    """The tokenizer of a pretrained model, with the markers of its own chat template.

    Args:
        source: a local directory or a name on the Hugging Face hub.
        template: the chat template instead of its own.

    Raises:
        ValueError: if there is none, it is no fast one, or its template has no end-of-answer token.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(source)
    if not getattr(tokenizer, "is_fast", False):
        raise ValueError(f"{source} has no fast tokenizer (tokenizer.json): name a model with one.")
    if not tokenizer("word", add_special_tokens=False)["input_ids"]:
        raise ValueError(
            f"{source} has no tokenizer, and the one that Transformers makes up for it knows no "
            "words: nothing would be read. Save the model's tokenizer into that folder too, or "
            "write model.text."
        )
    template = template or tokenizer.chat_template or _plain_template(tokenizer)
    markers = _markers(tokenizer, template, source)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    return ChatText(tokenizer.backend_tokenizer, markers, int(pad or 0), template)


def _plain_template(tokenizer: Any) -> str:
    """For base models without a template: Vicuna's words, closed by the model's own end token."""
    if tokenizer.eos_token is None:
        raise ValueError("the tokenizer has neither a chat template nor an end token: use another.")
    return (
        f"{tokenizer.bos_token or ''}"
        "{% for turn in messages %}{% if turn['role'] == 'user' %}USER: {{ turn['content'] }} "
        "{% elif turn['role'] == 'assistant' %}ASSISTANT: {{ turn['content'] }}"
        f"{tokenizer.eos_token}"
        "{% else %}{{ turn['content'] }} {% endif %}{% endfor %}"
        "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
    )


def _markers(tokenizer: PreTrainedTokenizerBase, template: str, source: str) -> ChatFormat:
    """Read the text around the turns off a rendered conversation of sentinels."""
    users, answers, system = ("Q1UQ", "Q2UQ"), ("Q1AQ", "Q2AQ"), "Q0SQ"
    turns = [
        {"role": "user", "content": users[0]},
        {"role": "assistant", "content": answers[0]},
        {"role": "user", "content": users[1]},
        {"role": "assistant", "content": answers[1]},
    ]

    def render(messages: list[dict[str, str]], asked: bool = False) -> str:
        rendered = tokenizer.apply_chat_template(
            messages, chat_template=template, add_generation_prompt=asked, tokenize=False
        )
        return str(rendered)

    text = render(turns)
    if any(text.count(word) != 1 for word in users + answers):
        raise ValueError(f"the chat template of {source} does not show every turn once.")
    first, rest = text.split(users[0])
    answer, rest = rest.split(answers[0])
    between = rest.split(users[1])[0]
    end = _end_of(between, tokenizer, source)
    # Where the assistant is asked to speak, the space before its words may not be written yet.
    asked, begin = render(turns[:1], asked=True).partition(users[0])[2], ""
    if answer.startswith(asked) and not answer.removeprefix(asked).strip():
        answer, begin = asked, answer.removeprefix(asked)
    try:
        opening, rest = render([{"role": "system", "content": system}, *turns]).split(system)
        spoken: tuple[str, str] | None = (opening, rest.split(users[0])[0])
    except Exception:  # templates refuse system turns with errors of their own
        spoken = None
    return ChatFormat(first, answer, end, between[len(end) :], spoken, begin)


def _end_of(between: str, tokenizer: Any, source: str) -> str:
    """What closes an answer: up to and with the first special token."""
    added = tokenizer.backend_tokenizer.get_added_tokens_decoder().values()
    names = {token.content for token in added if token.special} | set(tokenizer.all_special_tokens)
    stops = [between.index(name) + len(name) for name in names if name in between]
    if not stops:
        raise ValueError(
            f"the chat template of {source} puts no special token after an answer, so the model "
            "could not learn to stop. Use a tokenizer whose template has one."
        )
    return between[: min(stops)]
