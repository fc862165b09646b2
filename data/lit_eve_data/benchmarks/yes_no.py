"""Questions that are answered with yes or no: POPE and MME."""

from __future__ import annotations

from pathlib import Path

from lit_eve_data.benchmarks.base import BenchmarkQuestion, need, read_lines

PERCEPTION = (
    *("existence", "count", "position", "color", "posters"),
    *("celebrity", "scene", "landmark", "artwork", "OCR"),
)
COGNITION = (
    *("commonsense_reasoning", "numerical_calculation"),
    *("text_translation", "code_reasoning"),
)
_SUFFIXES = (".jpg", ".png", ".jpeg")


def pope(questions: Path, images: Path) -> list[BenchmarkQuestion]:
    """POPE: `{"question_id", "image", "text", "label"}` a line, the label yes or no.

    Raises:
        ValueError: if the file is missing or another one.
    """
    found = []
    for place, item in read_lines(questions):
        image, label = need(item, "image", str, place), need(item, "label", str, place)
        found.append(
            BenchmarkQuestion(
                str(need(item, "question_id", (int, str), place)),
                need(item, "text", str, place),
                (images / image,),
                (_polar(label, place),),
                group=image,
            )
        )
    return found


def mme(folder: Path) -> list[BenchmarkQuestion]:
    """MME: in the folder of every category a text file for each picture, `question TAB answer`.

    The files lie beside the pictures, or in `questions_answers_YN` beside a folder `images`.

    Raises:
        ValueError: if a category is missing, a picture has no two questions, or there is none.
    """
    found: list[BenchmarkQuestion] = []
    for category in (*PERCEPTION, *COGNITION):
        place = folder / category
        if not place.is_dir():
            raise ValueError(
                f"{folder} has no folder {category}: a sum over MME's 14 categories would be "
                "wrong. Unpack the whole release there."
            )
        apart = place / "questions_answers_YN"
        files = sorted((apart if apart.is_dir() else place).glob("*.txt"))
        for file in files:
            found += _about_one(file, place / "images" if apart.is_dir() else place, category)
    return found


def _about_one(file: Path, images: Path, category: str) -> list[BenchmarkQuestion]:
    picture = next(
        (p for suffix in _SUFFIXES if (p := images / (file.stem + suffix)).is_file()), None
    )
    if picture is None:
        raise ValueError(f"{file} asks about a picture that is not in {images}: {file.stem}.jpg.")
    rows = [row for row in file.read_text(encoding="utf-8").splitlines() if row.strip()]
    pairs = [row.rsplit("\t", 1) for row in rows]
    if len(pairs) != 2 or any(len(pair) != 2 for pair in pairs):
        raise ValueError(
            f"{file} has to hold two lines, each a question, a tab and the answer; accuracy+ is "
            "over pairs. Unpack the release again."
        )
    return [
        BenchmarkQuestion(
            f"{category}/{file.stem}/{number}",
            question.strip(),
            (picture,),
            (_polar(answer, str(file)),),
            category=category,
            group=f"{category}/{file.stem}",
        )
        for number, (question, answer) in enumerate(pairs)
    ]


def _polar(label: str, place: str) -> str:
    word = label.strip().lower().rstrip(".")
    if word not in ("yes", "no"):
        raise ValueError(f"{place}: the answer is {label!r}, neither yes nor no.")
    return word
