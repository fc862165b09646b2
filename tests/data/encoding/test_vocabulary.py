"""Markers of pretrained tokenizers, read off chat templates as common model families write them."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2Config

from lit_eve_data.disk.records import Turn
from lit_eve_data.encoding.vocabulary import pretrained_text

TALK: list[Turn] = [
    {"role": "user", "content": "Hello there"},
    {"role": "assistant", "content": "Good day."},
    {"role": "user", "content": "What is\n\n 12 + 3?"},
    {"role": "assistant", "content": "15"},
]
CHATML = (
    "{% for m in messages %}{% if loop.first and m.role != 'system' %}"
    "<|im_start|>system\nYou help.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
HEADERS = (  # bos, trimmed content, no default system turn
    "{{ bos_token }}{% for m in messages %}<|start|>{{ m.role }}<|stop|>\n\n"
    "{{ m.content | trim }}<|eot|>{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant<|stop|>\n\n{% endif %}"
)
INST = (  # markers that are plain words, and no system turn at all
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% elif m.role == 'assistant' %} {{ m.content }}{{ eos_token }}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}"
    "{% endfor %}"
)
SPECIAL = ["<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|start|>", "<|stop|>", "<|eot|>"]
SPACE_FIRST = {  # how tokenizers mark a word that follows a space; some also mark a text's first
    "byte level": (pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()),
    "metaspace": (pre_tokenizers.Metaspace(prepend_scheme="first"), decoders.Metaspace()),
    "metaspace in every piece": (pre_tokenizers.Metaspace(), decoders.Metaspace()),
}


def save(
    directory: Path, template: str | None, eos: str | None = "</s>", kind: str = "byte level"
) -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = SPACE_FIRST[kind]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([turn["content"] for turn in TALK] * 5, trainer)
    PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token=eos,
        extra_special_tokens=SPECIAL[2:],
        chat_template=template,
    ).save_pretrained(directory)
    return str(directory)


@pytest.mark.parametrize(
    ("template", "end", "eos"),
    [
        (CHATML, "<|im_end|>", "<|im_end|>"),
        (HEADERS, "<|eot|>", "<|eot|>"),
        (INST, "</s>", "</s>"),
    ],
    ids=["chatml", "headers", "inst"],
)
def test_the_template_of_a_model_is_followed(
    template: str, end: str, eos: str, tmp_path: Path
) -> None:
    text = pretrained_text(save(tmp_path, template, eos))
    tokenizer = text.transformers()
    reference = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    expected = reference.apply_chat_template(TALK, tokenize=False)
    encoded = text.encode(TALK, [])
    # A template may write a line end behind the last answer; nothing follows it here.
    assert tokenizer.decode(encoded.ids) == expected.removesuffix("\n")
    assert text.tokenizer.id_to_token(text.end_id) == end
    spans = [encoded.ids[start:stop] for start, stop in encoded.answers]
    assert [text.decode(span) for span in spans] == ["Good day.", "15"]
    assert all(span[-1] == text.end_id for span in spans)
    prompt = text.prompt(TALK[:3], [])
    rendered = reference.apply_chat_template(TALK[:3], add_generation_prompt=True, tokenize=False)
    assert str(tokenizer.decode(prompt.ids)).rstrip() == rendered.rstrip()


def test_ids_are_those_of_the_model_where_markers_are_special(tmp_path: Path) -> None:
    text = pretrained_text(save(tmp_path, CHATML, "<|im_end|>"))
    reference = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    ids = reference.apply_chat_template(TALK, return_dict=False)
    assert text.encode(TALK, []).ids == ids[:-1]  # all but the line end behind the last answer


@pytest.mark.parametrize("kind", SPACE_FIRST)
@pytest.mark.parametrize("template", [INST, None], ids=["inst", "plain"])
def test_ids_are_those_of_the_whole_text_where_markers_are_words(
    template: str | None, kind: str, tmp_path: Path
) -> None:
    # What a model was trained on: no space of its own behind `[/INST]` or `ASSISTANT:`.
    text = pretrained_text(save(tmp_path, template, kind=kind))
    reference = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    systems: list[list[Turn]] = [[], [{"role": "system", "content": "Be brief."}]]
    for before in systems[: 1 if template else 2]:
        for turns, asked in ((TALK, False), (TALK[:3], True)):
            whole = reference.apply_chat_template(
                [*before, *turns],
                chat_template=text.template,
                add_generation_prompt=asked,
                return_dict=False,
            )
            assert (text.prompt if asked else text.encode)([*before, *turns], []).ids == whole
    begun = text.prompt(TALK[:3], []).ids + text.words("15")
    assert text.encode(TALK, []).ids == [*begun, text.end_id]


def test_system_turns_follow_the_template(tmp_path: Path) -> None:
    text = pretrained_text(save(tmp_path, CHATML, "<|im_end|>"))
    talk: list[Turn] = [{"role": "system", "content": "Be brief."}, *TALK[:2]]
    reference = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    ids = reference.apply_chat_template(talk, return_dict=False)
    assert text.encode(talk, []).ids == ids[:-1]


def test_a_template_without_system_turns_refuses_them(tmp_path: Path) -> None:
    text = pretrained_text(save(tmp_path, INST))
    with pytest.raises(ValueError, match="no system turn"):
        text.encode([{"role": "system", "content": "Be brief."}, *TALK], [])


def test_a_base_model_gets_a_plain_format(tmp_path: Path) -> None:
    text = pretrained_text(save(tmp_path, None))
    words = text.tokenizer.decode(text.encode(TALK, []).ids, skip_special_tokens=False)
    assert words == (
        "<s>USER: Hello there ASSISTANT: Good day.</s>USER: What is\n\n 12 + 3? ASSISTANT: 15</s>"
    )
    assert text.tokenizer.id_to_token(text.end_id) == "</s>"


def test_without_an_end_token_nothing_could_stop(tmp_path: Path) -> None:
    template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    with pytest.raises(ValueError, match="could not learn to stop"):
        pretrained_text(save(tmp_path / "a", template))
    with pytest.raises(ValueError, match="neither a chat template nor an end token"):
        pretrained_text(save(tmp_path / "b", None, eos=None))


def test_a_template_that_hides_turns_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not show every turn once"):
        pretrained_text(save(tmp_path, "{{ messages[-1].content }}</s>"))


def test_a_model_without_a_tokenizer_is_not_read_with_one_that_knows_no_words(
    tmp_path: Path,
) -> None:
    Qwen2Config().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"has no tokenizer.*nothing would be read"):
        pretrained_text(str(tmp_path))
