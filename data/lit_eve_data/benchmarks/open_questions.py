"""Questions that are answered in words: VQAv2, GQA, TextVQA, and lines of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lit_eve_data.benchmarks.base import BenchmarkQuestion, need, read_json, read_lines


def vqav2(questions: Path, annotations: Path, images: Path, name: str) -> list[BenchmarkQuestion]:
    """VQAv2's two files.

    Args:
        questions: `{"questions": [{"question_id", "image_id", "question"}]}`.
        annotations: `{"annotations": [{"question_id", "answers": [{"answer"}], "answer_type"}]}`.
        images: folder of pictures.
        name: of a picture's file, with its number put in.

    Raises:
        ValueError: if a file is missing or another one, or a question has no annotation.
    """
    told = {
        need(item, "question_id", int, str(annotations)): item
        for item in need(read_json(annotations), "annotations", list, str(annotations))
    }
    found = []
    for item in need(read_json(questions), "questions", list, str(questions)):
        number = need(item, "question_id", int, str(questions))
        if number not in told:
            raise ValueError(
                f"{annotations} has no answers to question {number} of {questions}: the two files "
                "are not of the same split. Name those of one split."
            )
        given = need(told[number], "answers", list, str(annotations))
        image = need(item, "image_id", int, str(questions))
        found.append(
            BenchmarkQuestion(
                str(number),
                need(item, "question", str, str(questions)),
                (images / name.format(image),),
                tuple(need(answer, "answer", str, str(annotations)) for answer in given),
                category=str(told[number].get("answer_type", "")),
                group=str(image),
            )
        )
    return found


def gqa(questions: Path, images: Path) -> list[BenchmarkQuestion]:
    """GQA's balanced questions: `{id: {"question", "imageId", "answer", "types"}}`.

    Raises:
        ValueError: if the file is missing or another one.
    """
    found = []
    for number, item in need({"all": read_json(questions)}, "all", dict, str(questions)).items():
        place = f"{questions}, question {number}"
        image = need(item, "imageId", str, place)
        found.append(
            BenchmarkQuestion(
                str(number),
                need(item, "question", str, place),
                (images / f"{image}.jpg",),
                (need(item, "answer", str, place),),
                category=str(item.get("types", {}).get("structural", "")),
                group=image,
            )
        )
    return found


def textvqa(questions: Path, images: Path) -> list[BenchmarkQuestion]:
    """TextVQA: `{"data": [{"question_id", "image_id", "question", "answers"}]}`.

    Raises:
        ValueError: if the file is missing, another one, or that of the test split.
    """
    found = []
    for item in need(read_json(questions), "data", list, str(questions)):
        image = need(item, "image_id", str, str(questions))
        found.append(
            BenchmarkQuestion(
                str(need(item, "question_id", int, str(questions))),
                need(item, "question", str, str(questions)),
                (images / f"{image}.jpg",),
                tuple(need(item, "answers", list, str(questions))),
                group=image,
            )
        )
    return found


def lines(questions: Path, images: Path) -> list[BenchmarkQuestion]:
    """A JSON object a line.

    Keys: `question`; `image` or `images`; `answer` or `answers`; with `choices` the `answer` is one
    of them, its letter or its number; `box` is four shares; `id`, `context`, `category`, `group`.

    Raises:
        ValueError: if the file is missing, or a line is not understood.
    """
    found = []
    for number, (place, item) in enumerate(read_lines(questions), 1):
        text = need(item, "question", str, place)
        named = item.get("images", item.get("image", []))
        pictures = [named] if isinstance(named, str) else named
        choices = tuple(item.get("choices", ()))
        found.append(
            BenchmarkQuestion(
                str(item.get("id", number)),
                text,
                tuple(images / picture for picture in pictures),
                _answers(item, place),
                choices,
                _choice(item, choices, place) if choices else -1,
                str(item.get("context", "")),
                str(item.get("category", "")),
                str(item.get("group", pictures[0] if pictures else number)),
            )
        )
    return found


def _answers(item: Any, place: str) -> tuple[str, ...]:
    if "box" in item:
        return (" ".join(str(side) for side in need(item, "box", list, place)),)
    if "answers" in item:
        return tuple(map(str, need(item, "answers", list, place)))
    return (str(need(item, "answer", (str, int, float), place)),)


def _choice(item: Any, choices: tuple[str, ...], place: str) -> int:
    answer = need(item, "answer", (str, int), place)
    if isinstance(answer, int) and 0 <= answer < len(choices):
        return answer
    if answer in choices:
        return choices.index(str(answer))
    letter = ord(str(answer).upper()[:1] or "?") - ord("A")
    if len(str(answer)) == 1 and 0 <= letter < len(choices):
        return letter
    raise ValueError(
        f"{place}: the answer {answer!r} is none of the {len(choices)} choices. Write one of them, "
        "its letter, or its number from 0."
    )
