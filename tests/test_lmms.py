"""lit-eve's models under lmms-eval's interface, as version 0.7.2 documents and calls it.

With lmms-eval installed the real base class is used; without, one with the same abstract methods.
"""

from __future__ import annotations

import importlib.util
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lit_eve.inference.assistant import Assistant, Decoding, ask
from lit_eve_data.disk.records import StoredImage
from tests.inference.tiny import picture, tiny_assistant


class Base(ABC):
    """The abstract methods of `lmms_eval.api.model.lmms`."""

    def __init__(self) -> None:
        self.task_dict: dict[str, Any] = {}

    @abstractmethod
    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]: ...

    @abstractmethod
    def generate_until(self, requests: list[Any]) -> list[str]: ...

    @abstractmethod
    def generate_until_multi_round(self, requests: list[Any]) -> list[str]: ...


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module, over the real lmms-eval or over its abstract methods."""
    if importlib.util.find_spec("lmms_eval") is None:
        contents: dict[str, dict[str, Any]] = {
            "lmms_eval": {},
            "lmms_eval.api": {},
            "lmms_eval.api.model": {"lmms": Base},
            "lmms_eval.models": {},
            "lmms_eval.models.registry_v2": {"ModelManifest": SimpleNamespace},
        }
        for name, content in contents.items():
            module = ModuleType(name)
            module.__dict__.update(content)
            monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, "lit_eve.lmms.models", raising=False)
    yield importlib.import_module("lit_eve.lmms.models")
    sys.modules.pop("lit_eve.lmms.models", None)


PICTURES = [picture(16, 24, 1), picture(32, 16, 2), picture(16, 16, 3)]
DOCUMENTS = [
    {"question": f"Question {n}?", "image": Image.fromarray(np.asarray(one.pixels()))}
    for n, one in enumerate(PICTURES)
]


def opened(models: Any, monkeypatch: pytest.MonkeyPatch, kind: str) -> Any:
    monkeypatch.setattr(models, "find", lambda run, runs: Path(run))
    monkeypatch.setattr(models, "open_assistant", lambda directory, stage: tiny_assistant())
    model = getattr(models, kind)(run="quickstart", batch_size="1", device="cpu")
    model.task_dict = {"mine": {"test": DOCUMENTS}}
    return model


def simple(number: int, **settings: Any) -> SimpleNamespace:
    arguments = (
        DOCUMENTS[number]["question"],
        {"max_new_tokens": 6, "until": ["\n\n"], **settings},
        lambda document: [document["image"]],
        *(number, "mine", "test"),
    )
    return SimpleNamespace(args=arguments)


def expected(assistant: Assistant, number: int, decoding: Decoding) -> str:
    question = ask(str(DOCUMENTS[number]["question"]), [PICTURES[number]])
    return next(assistant.answers([question], decoding)).text


def test_it_is_found_under_the_entry_point_group(models: Any) -> None:
    (found,) = entry_points(group="lmms_eval.models", name="lit_eve")
    manifest = found.load()()
    assert manifest.model_id == "lit_eve"
    for path, is_simple in (
        (manifest.simple_class_path, True),
        (manifest.chat_class_path, False),
    ):
        module, name = path.rsplit(".", 1)
        assert module == models.__name__
        assert getattr(models, name).is_simple is is_simple


def test_requests_are_answered_in_their_order(models: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = opened(models, monkeypatch, "LitEveSimple")
    requests = [simple(2), simple(0, max_new_tokens=3), simple(1, do_sample=False, temperature=1)]
    answers = model.generate_until(requests)
    assistant = tiny_assistant()
    wanted = [(2, 6), (0, 3), (1, 6)]
    assert answers == [expected(assistant, n, Decoding(most)).strip() for n, most in wanted]


def test_messages_are_asked_as_they_stand(models: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = opened(models, monkeypatch, "LitEveChat")

    def messages(document: dict[str, Any]) -> list[dict[str, Any]]:
        seen = {"type": "image", "url": document["image"]}
        text = {"type": "text", "text": document["question"]}
        return [{"role": "user", "content": [seen, text]}]

    request = SimpleNamespace(args=("", messages, {"max_new_tokens": 6}, 1, "mine", "test"))
    assert model.generate_until([request]) == [expected(tiny_assistant(), 1, Decoding(6))]
    film = SimpleNamespace(
        args=(
            "",
            lambda document: [{"role": "user", "content": [{"type": "video", "url": "a.mp4"}]}],
            *({}, 1, "mine", "test"),
        )
    )
    with pytest.raises(ValueError, match="shows a video, and the model sees pictures only"):
        model.generate_until([film])


def test_the_likeliest_continuation_has_the_smallest_number(
    models: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = opened(models, monkeypatch, "LitEveSimple")
    choices = [" a cat", " a dog", lambda document: " two"]
    requests = [
        SimpleNamespace(args=("Which?", choice, lambda d: d["image"], 0, "mine", "test"))
        for choice in choices
    ]
    found = model.loglikelihood(requests)
    question = ask("Which?", [PICTURES[0]])
    one = next(tiny_assistant().likelihoods([question], [["a cat", "a dog", "two"]]))
    assert [loss for loss, _ in found] == pytest.approx([-each.total for each in one], rel=1e-5)
    assert [greedy for _, greedy in found] == [each.greedy for each in one]


def test_more_tokens_than_there_is_room_for_are_cut_down(
    models: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = opened(models, monkeypatch, "LitEveSimple")
    assert model.generate_until([simple(0, max_new_tokens=4096, until="zzz")])[0]


def test_text_ends_where_the_task_says(models: Any) -> None:
    assert models._until("a b\n\nc", ["\n\n"]) == "a b"
    assert models._until("a b.c", ["", "."]) == "a b"


def test_settings_are_read_as_transformers_means_them(models: Any) -> None:
    assert models._decoding({}) == Decoding(128)
    assert models._decoding({"temperature": 0.5, "top_p": 0.9}) == Decoding(128, 0.5, 0.9)
    greedy = {"temperature": 0.5, "do_sample": False, "top_p": 0.9, "max_new_tokens": 7}
    assert models._decoding(greedy) == Decoding(7)
    with pytest.raises(ValueError, match="num_beams 4 would be ignored"):
        models._decoding({"num_beams": 4})


def test_batch_sizes_and_rounds_are_refused(models: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = opened(models, monkeypatch, "LitEveSimple")
    with pytest.raises(ValueError, match="batch_tokens=16384 instead"):
        models.LitEveSimple(run="quickstart", batch_size=8)
    with pytest.raises(ValueError, match="several rounds"):
        model.generate_until_multi_round([])
    with pytest.raises(ValueError, match="shows a str"):
        models._picture("a.mp4")
    assert isinstance(models._picture(DOCUMENTS[0]["image"]), StoredImage)
