"""Messages and pictures to what an exported model reads, token by token as in training.

Shapes: N conversations, L slots of the longest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from PIL import Image
from transformers import BatchFeature, ProcessorMixin

from lit_eve.hub.image_processing import LitEveImageProcessor, only_torch, pictures
from lit_eve_data.disk.records import IMAGE, Turn
from lit_eve_data.encoding.text import ChatText

Message = Mapping[str, Any]

_FLATTEN = (
    "{%- set ns = namespace(turns=[]) -%}{%- for turn in messages -%}"
    "{%- set words = namespace(text='') -%}"
    "{%- if turn['content'] is string -%}{%- set words.text = turn['content'] -%}{%- else -%}"
    "{%- for piece in turn['content'] -%}{%- if piece['type'] == 'image' -%}"
    "{%- if words.text == '' or words.text[-1:] == '\\n' -%}"
    f"{{%- set words.text = words.text + '{IMAGE}\\n' -%}}{{%- else -%}}"
    f"{{%- set words.text = words.text + '{IMAGE}' -%}}{{%- endif -%}}"
    "{%- else -%}{%- set words.text = words.text + piece['text'] -%}{%- endif -%}"
    "{%- endfor -%}{%- endif -%}"
    "{%- set ns.turns = ns.turns + [{'role': turn['role'], 'content': words.text}] -%}"
    "{%- endfor -%}{%- set messages = ns.turns -%}"
)
"""Jinja for what `_read` does: messages of pieces to messages of words with placeholders."""


class LitEveProcessor(ProcessorMixin):
    """Text and pictures together; a conversation becomes the tokens it had in training.

    Args:
        image_processor: for the pictures.
        tokenizer: for the words.
        chat_template: the Jinja template, for messages of words and of pieces.
        chat: what the run knew of its tokenizer, `ChatText.about`.
    """

    def __init__(
        self,
        image_processor: LitEveImageProcessor,
        tokenizer: Any,
        chat_template: str | None = None,
        chat: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(image_processor, tokenizer, chat_template=chat_template)  # type: ignore[no-untyped-call]
        self.chat = dict(chat or {})
        self.image_token = IMAGE
        self.image_token_id = int(tokenizer.convert_tokens_to_ids(IMAGE))

    @classmethod
    def of(cls, image_processor: LitEveImageProcessor, text: ChatText) -> LitEveProcessor:
        """The same as a run's own tokenizer and cutter."""
        tokenizer: Any = text.transformers()
        if tokenizer.convert_tokens_to_ids(IMAGE) in (None, tokenizer.unk_token_id):
            tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE]})
        tokenizer.chat_template = _FLATTEN + text.template
        tokenizer.padding_side = "left"
        return cls(image_processor, tokenizer, tokenizer.chat_template, text.about())

    @property
    def model_input_names(self) -> list[str]:
        """What the model is given."""
        return ["input_ids", "attention_mask", "pixel_values", "image_grids"]

    @property
    def text(self) -> ChatText:
        """The tokenizer and its chat format as the training had them."""
        return ChatText.of(self.tokenizer.backend_tokenizer, self.chat)

    def __call__(
        self,
        images: Any = None,
        text: str | Sequence[str] | None = None,
        return_tensors: str | None = None,
        padding: bool = True,
    ) -> BatchFeature:
        """Prompts written out, markers included, with a placeholder for every picture.

        Args:
            images: pictures in the order of their placeholders: a list, or one for each text.
            text: one or several, as `apply_chat_template` gives them.
            return_tensors: `pt`, or None for the same.
            padding: in front of what is shorter, which several texts need.

        Raises:
            ValueError: if there are more or fewer pictures than placeholders.
        """
        only_torch(return_tensors)
        texts = [text] if isinstance(text, str) else list(text or ())
        found = [] if images is None else pictures(images)
        _check_count(sum(one.count(IMAGE) for one in texts), len(found))
        counts = iter(self._visual_tokens(found))
        rows = []
        for one in texts:
            first, *others = one.split(IMAGE)
            row = self._ids(first)
            for piece in others:
                row += [self.image_token_id] * next(counts) + self._ids(piece)
            rows.append(row)
        return self._batch(rows, found, padding)

    def apply_chat_template(  # type: ignore[override]  # no other option would be heard
        self,
        conversation: Any,
        chat_template: str | None = None,
        *,
        add_generation_prompt: bool | None = None,
        continue_final_message: bool = False,
        tokenize: bool = False,
        return_dict: bool = True,
        return_tensors: str | None = None,
        processor_kwargs: Mapping[str, Any] | None = None,
        **variables: Any,
    ) -> Any:
        """Conversations as text, or with `tokenize` as tokens and pictures, exactly as in training.

        Args:
            conversation: messages, or a list of such lists. A message's content is words, or
                pieces: `{"type": "text", "text": ...}`, `{"type": "image", "image": ...}` (or
                `url`, `path`).
            chat_template: another template, and `variables` for it; for text only.
            add_generation_prompt: end where the assistant speaks next; as the last turn wants it
                if None.
            continue_final_message: end inside the assistant's last words.
            tokenize: tokens and pictures in place of text.
            return_dict: everything that the model takes; otherwise its `input_ids` alone.
            return_tensors: `pt`, or None for the same.
            processor_kwargs: `padding` and `return_tensors`, as when called.
            **variables: for the template.

        Raises:
            ValueError: if pictures and placeholders differ in number, turns do not alternate, or
                an argument would be ignored.
        """
        several = not conversation or not isinstance(conversation[0], Mapping)
        chats: list[Any] = list(conversation) if several else [conversation]
        if not tokenize:
            prompt = [
                self.tokenizer.apply_chat_template(
                    turns,
                    chat_template=chat_template or self.chat_template,
                    tokenize=False,
                    add_generation_prompt=_speaks_next(turns, add_generation_prompt),
                    continue_final_message=continue_final_message,
                    **variables,
                )
                for turns in (_read(chat)[0] for chat in chats)
            ]
            return prompt if several else prompt[0]
        if chat_template is not None or variables:
            raise ValueError(
                f"{['chat_template'] * (chat_template is not None) + sorted(variables)} would be "
                "ignored: tokens are made as in training. Leave them out, or make text and call "
                "the processor on it."
            )
        batch = self._tokens(
            chats,
            add_generation_prompt,
            continue_final_message,
            **{"return_tensors": return_tensors, **(processor_kwargs or {})},
        )
        return batch if return_dict else batch["input_ids"]

    def _tokens(
        self,
        chats: Sequence[Any],
        speaks_next: bool | None,
        continued: bool,
        return_tensors: str | None = None,
        padding: bool = True,
    ) -> BatchFeature:
        only_torch(return_tensors)
        text, rows, found = self.text, [], list[Image.Image]()
        for chat in chats:
            turns, images = _read(chat)
            _check_count(sum(turn["content"].count(IMAGE) for turn in turns), len(images))
            counts = self._visual_tokens(images)
            if continued:
                encoded = text.prompt(turns[:-1], counts)
                tail = text.words(turns[-1]["content"])
            else:
                asked = _speaks_next(turns, speaks_next)
                encoded, tail = (text.prompt if asked else text.encode)(turns, counts), []
            row = list(encoded.ids)
            for start, stop in encoded.images:
                row[start:stop] = [self.image_token_id] * (stop - start)
            rows.append(row + tail)
            found += images
        return self._batch(rows, found, padding)

    def _ids(self, text: str) -> list[int]:
        return cast("list[int]", self.tokenizer.encode(text, add_special_tokens=False))

    def _visual_tokens(self, images: Sequence[Image.Image]) -> list[int]:
        cutter = self.image_processor.cutter
        return [cutter.num_tokens(image.height, image.width) for image in images]

    def _batch(
        self, rows: Sequence[Sequence[int]], images: Sequence[Image.Image], padding: bool
    ) -> BatchFeature:
        """Prompts of one length, padding in front, and the pictures behind them."""
        longest = max((len(row) for row in rows), default=0)
        if not padding and any(len(row) != longest for row in rows):
            raise ValueError(
                f"prompts of {sorted({len(row) for row in rows})} tokens are no one tensor. Leave "
                "padding on."
            )
        ids = torch.full((len(rows), longest), self.chat["pad_id"], dtype=torch.int64)  # (N, L)
        mask = torch.zeros_like(ids)
        for number, row in enumerate(rows):
            ids[number, longest - len(row) :] = torch.tensor(row, dtype=torch.int64)
            mask[number, longest - len(row) :] = 1
        batch: dict[str, Any] = {"input_ids": ids, "attention_mask": mask}
        if images:
            batch |= self.image_processor.preprocess(list(images))
        return BatchFeature(batch)


def _read(chat: Any) -> tuple[list[Turn], list[Image.Image]]:
    """The words of a conversation, with placeholders, and its pictures."""
    turns: list[Turn] = []
    found: list[Image.Image] = []
    for message in getattr(chat, "messages", chat):
        content = message["content"]
        pieces = [{"type": "text", "text": content}] if isinstance(content, str) else content
        words = ""
        for piece in pieces:
            if piece["type"] == "text":
                words += piece["text"]
            elif piece["type"] == "image":
                source = next((piece[k] for k in ("image", "url", "path") if k in piece), None)
                found += [] if source is None else pictures(source)
                words += f"{IMAGE}\n" if words == "" or words.endswith("\n") else IMAGE
            else:
                raise ValueError(
                    f"a piece of type {piece['type']!r} cannot be read: these models know text and "
                    "image."
                )
        turns.append({"role": message["role"], "content": words})
    return turns, found


def _speaks_next(turns: Sequence[Turn], wanted: bool | None) -> bool:
    """Whether a prompt ends where the assistant speaks."""
    answered = bool(turns) and turns[-1]["role"] == "assistant"
    if wanted is not None and wanted == answered:
        raise ValueError(
            f"add_generation_prompt is {wanted}, and the last turn is the "
            f"{'assistant' if answered else 'user'}'s: the model has seen no such text. Leave "
            "add_generation_prompt out."
        )
    return not answered


def _check_count(places: int, images: int) -> None:
    if places != images:
        raise ValueError(
            f"the text keeps {places} {IMAGE} places and {images} pictures were given: each needs "
            "the other. Add what is missing, or take out what is too much."
        )
