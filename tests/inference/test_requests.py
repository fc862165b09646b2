"""From the words of the command line and of files to questions, and to the file of answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lit_eve.inference.assistant import Answer
from lit_eve.inference.requests import (
    AnswerFile,
    check_request,
    read_picture,
    read_prompts,
    requests_of,
)
from tests.data.bombs import bomb
from tests.inference.tiny import write_picture


def prompts(folder: Path, *lines: object) -> Path:
    file = folder / "prompts.jsonl"
    words = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    file.write_text("\n".join(words) + "\n")
    return file


def test_a_line_may_be_written_in_several_ways(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png")
    write_picture(tmp_path / "b.png")
    file = prompts(
        tmp_path,
        {"prompt": "One?", "image": "a.png", "id": 7},
        "",
        {"text": "Two?", "images": ["a.png", "b.png"], "seed": 40},
        {"question": "None?"},
    )
    requests = read_prompts(file, None, seed=3)
    assert [request.prompt for request in requests] == ["One?", "Two?", "None?"]
    assert [len(request.question().images) for request in requests] == [1, 2, 0]
    assert [request.seed for request in requests] == [3, 40, 5]
    assert requests[0].fields["id"] == 7


def test_all_mistakes_of_a_file_are_told_with_their_lines(tmp_path: Path) -> None:
    write_picture(tmp_path / "pictures" / "a.png")
    (tmp_path / "pictures" / "page.png").write_text("<html>")
    file = prompts(
        tmp_path,
        "{",
        {"prompt": "Fine.", "image": "a.png"},
        {"image": "a.png"},
        {"prompt": "p", "image": "b.png"},
        {"prompt": "p", "image": "page.png"},
        {"prompt": "<image><image>", "image": "a.png"},
        {"prompt": "p", "text": "q"},
        {"prompt": "p", "images": 3},
        {"prompt": "p", "seed": "x"},
        "[]",
    )
    with pytest.raises(ValueError, match="no JSON") as caught:
        read_prompts(file, tmp_path / "pictures", 0)
    told = str(caught.value).splitlines()
    assert [line.split(":")[1] for line in told] == ["1", "3", "4", "5", "6", "7", "8", "9", "10"]
    expected = (
        "Write one object a line",
        "nothing is asked. Add one",
        "b.png is no picture that can be read",
        "page.png is no picture that can be read",
        "no image for <image>",
        "'prompt' and 'text' say the same thing",
        "no list of file names",
        "no whole number",
        "expected an object",
    )
    assert all(words in line for words, line in zip(expected, told, strict=True))


def test_an_empty_or_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"prompts\.jsonl holds no prompts"):
        read_prompts(prompts(tmp_path, ""), None, 0)
    with pytest.raises(ValueError, match=r"none\.jsonl cannot be read: No such .*Give the path"):
        read_prompts(tmp_path / "none.jsonl", None, 0)
    (tmp_path / "latin.jsonl").write_bytes(b'{"prompt": "\xe9"}')
    with pytest.raises(ValueError, match="Save it as UTF-8"):
        read_prompts(tmp_path / "latin.jsonl", None, 0)


def test_a_folder_asks_about_every_picture(tmp_path: Path) -> None:
    for name in ("b.png", "a.png"):
        write_picture(tmp_path / "in" / name)
    requests = requests_of("What?", [], tmp_path / "in", None, 10)
    assert [(r.fields["image"], r.seed) for r in requests] == [("a.png", 10), ("b.png", 11)]
    with pytest.raises(ValueError, match="no image for <image>"):
        requests_of("<image><image>", [], tmp_path / "in", None, 10)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((None, [], None, None), "one of --prompt and --prompts"),
        (("p", [], None, Path("f")), "one of --prompt and --prompts"),
        ((None, [Path("a.png")], None, Path("f")), "--image would be ignored"),
        (("p", [Path("a.png")], Path("d"), None), "exclude each other"),
        (
            ("p", [Path("none.png")], None, None),
            r"none\.png is no picture .*\(No such [^/]*\): the",
        ),
    ],
)
def test_words_that_contradict_each_other_are_refused(
    words: tuple[Any, Any, Any, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        requests_of(*words, 0)


def test_a_very_large_picture_is_looked_at_without_a_warning(tmp_path: Path) -> None:
    file = tmp_path / "large.png"
    file.write_bytes(bomb(12_000))
    check_request(requests_of("What?", [file], None, None, 0)[0])
    with pytest.raises(ValueError, match=r"12000 x 12000 pixels are above"):
        read_picture(file)


def test_a_picture_is_read_as_training_reads_it(tmp_path: Path) -> None:
    assert read_picture(write_picture(tmp_path / "a.png", 16, 40)).height == 16
    with pytest.raises(ValueError, match="is no picture that can be read"):
        read_picture(write_picture(tmp_path / "thin.png", 4, 4))
    with pytest.raises(ValueError, match=r"cannot be read: No such file.*Give the path"):
        read_picture(tmp_path / "none.png")


def test_answers_appear_under_their_name_when_all_are_there(tmp_path: Path) -> None:
    request = requests_of("What?", [write_picture(tmp_path / "a.png")], None, None, 2)[0]
    file = AnswerFile(tmp_path / "new" / "answers.jsonl")
    file.write(request, Answer("ein Kätzchen", 4, True))
    assert not file.path.exists()
    file.finish()
    line = json.loads(file.path.read_text())
    assert line.pop("images") == [str(tmp_path / "a.png")]
    assert line == {
        "prompt": "What?",
        "seed": 2,
        "answer": "ein Kätzchen",
        "tokens": 4,
        "finished": True,
    }
    with pytest.raises(ValueError, match="cannot be written"):
        AnswerFile(tmp_path / "a.png" / "answers.jsonl")
