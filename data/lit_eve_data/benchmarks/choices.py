"""Multiple choice: MMBench, ScienceQA, SEED-Bench."""

from __future__ import annotations

import base64
import binascii
from pathlib import Path

from lit_eve_data.benchmarks.base import (
    BenchmarkQuestion,
    is_missing,
    need,
    read_json,
    read_table,
)

_LETTERS = "ABCDE"
_ROTATIONS = 1_000_000
"""MMBench numbers the rotations of question n by n, n + 1e6, n + 2e6, ..."""
_SHORT = 64
"""A cell of a picture that is shorter names the row that has it."""


def mmbench(table: Path) -> list[BenchmarkQuestion]:
    """MMBench: `index, question, hint, A, B, C, D, answer, category, image` with base64 pictures.

    Rotations of a question form a group.

    Raises:
        ValueError: if the file is missing, another one, or that of the test split.
    """
    found: list[BenchmarkQuestion] = []
    pictures: dict[str, bytes] = {}
    for place, row in read_table(table):
        index, answer = need(row, "index", str, place), row.get("answer") or ""
        letters = [letter for letter in _LETTERS if not is_missing(row.get(letter))]
        if answer not in letters:
            raise ValueError(
                f"{place}: the answer is {answer!r}, none of {', '.join(letters)}. The answers of "
                "the test split are not published: use the dev split."
            )
        hint = row.get("hint")
        pictures[index] = _picture(need(row, "image", str, place), pictures, place)
        found.append(
            BenchmarkQuestion(
                index,
                need(row, "question", str, place),
                (pictures[index],),
                (answer,),
                tuple(row[letter] for letter in letters),
                letters.index(answer),
                "" if is_missing(hint) else str(hint),
                row.get("category") or "",
                str(int(float(index)) % _ROTATIONS),
            )
        )
    return found


def _picture(cell: str, earlier: dict[str, bytes], place: str) -> bytes:
    if len(cell) <= _SHORT and cell in earlier:
        return earlier[cell]
    try:
        return base64.b64decode(cell, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"{place}: `image` is no base64 ({error}).") from error


def scienceqa(
    problems: Path, splits: Path, split: str, images: Path, with_image: bool
) -> list[BenchmarkQuestion]:
    """ScienceQA: `{id: {"question", "choices", "answer", "hint", "image"}}` and ids of each split.

    Args:
        problems: all of them.
        splits: `{split: [id, ...]}`.
        split: which ids.
        images: folder with a folder for each id.
        with_image: only those that have a picture.

    Raises:
        ValueError: if a file is missing or another one, or there is no such split.
    """
    known, parts = read_json(problems), read_json(splits)
    found = []
    for number in need(parts, split, list, str(splits)):
        place = f"{problems}, problem {number}"
        item = need(known, str(number), dict, str(problems))
        image = item.get("image")
        if with_image and not image:
            continue
        choices, right = need(item, "choices", list, place), need(item, "answer", int, place)
        if not 0 <= right < len(choices):
            raise ValueError(f"{place}: the answer {right} is none of {len(choices)} choices.")
        found.append(
            BenchmarkQuestion(
                str(number),
                need(item, "question", str, place),
                (images / str(number) / image,) if image else (),
                (choices[right],),
                tuple(choices),
                right,
                str(item.get("hint", "")),
                str(item.get("subject", "")),
                str(number),
            )
        )
    return found


def seed(questions: Path, images: Path) -> list[BenchmarkQuestion]:
    """SEED-Bench: `{"questions": [{"question", "choice_a", ..., "answer", "data_id"}]}`.

    Questions about videos are left out.

    Raises:
        ValueError: if the file is missing or another one.
    """
    whole = read_json(questions)
    names = {number: name for name, number in whole.get("question_type", {}).items()}
    found = []
    for item in need(whole, "questions", list, str(questions)):
        place = f"{questions}, question {item.get('question_id')}"
        if need(item, "data_type", str, place) != "image":
            continue
        keys = ("choice_a", "choice_b", "choice_c", "choice_d")
        choices = tuple(need(item, key, str, place) for key in keys)
        answer, image = need(item, "answer", str, place), need(item, "data_id", str, place)
        if answer not in "ABCD" or len(answer) != 1:
            raise ValueError(f"{place}: the answer is {answer!r}, none of A, B, C, D.")
        kind = item.get("question_type_id")
        found.append(
            BenchmarkQuestion(
                str(need(item, "question_id", (str, int), place)),
                need(item, "question", str, place),
                (images / image,),
                (answer,),
                choices,
                "ABCD".index(answer),
                category=str(names.get(kind, kind)),
                group=image,
            )
        )
    return found
