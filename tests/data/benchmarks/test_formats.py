"""Small files in the published formats, field by field as their authors name them."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lit_eve_data.benchmarks.base import BenchmarkQuestion, check_pictures
from lit_eve_data.benchmarks.choices import mmbench, scienceqa, seed
from lit_eve_data.benchmarks.open_questions import gqa, lines, textvqa, vqav2
from lit_eve_data.benchmarks.yes_no import COGNITION, PERCEPTION, mme, pope


def write(file: Path, content: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return file


def vqa_files(folder: Path) -> tuple[Path, Path]:
    questions = {
        "info": {},
        "task_type": "Open-Ended",
        "data_type": "mscoco",
        "questions": [
            {"image_id": 262148, "question": "Where is he looking?", "question_id": 262148000},
            {"image_id": 262148, "question": "Is it day?", "question_id": 262148001},
        ],
    }
    annotations = {
        "annotations": [
            {
                "question_type": "none of the above",
                "multiple_choice_answer": "down",
                "answers": [
                    {"answer": "down", "answer_confidence": "yes", "answer_id": n}
                    for n in range(1, 11)
                ],
                "image_id": 262148,
                "answer_type": kind,
                "question_id": number,
            }
            for number, kind in ((262148000, "other"), (262148001, "yes/no"))
        ]
    }
    return write(folder / "q.json", questions), write(folder / "a.json", annotations)


def test_vqav2(tmp_path: Path) -> None:
    name = "COCO_val2014_{:012d}.jpg"
    first, second = vqav2(*vqa_files(tmp_path), tmp_path / "val2014", name)
    assert first.text == "Where is he looking?"
    assert first.pictures == (tmp_path / "val2014" / "COCO_val2014_000000262148.jpg",)
    assert first.answers == ("down",) * 10
    assert (first.category, second.category) == ("other", "yes/no")
    assert first.group == second.group


def test_vqav2_of_two_splits_is_refused(tmp_path: Path) -> None:
    questions, annotations = vqa_files(tmp_path)
    write(annotations, {"annotations": []})
    with pytest.raises(ValueError, match=r"no answers to question 262148000 .* of one split"):
        vqav2(questions, annotations, tmp_path, "{}")


def test_gqa(tmp_path: Path) -> None:
    item = {
        "semantic": [],
        "entailed": [],
        "question": "Is it overcast?",
        "imageId": "n161313",
        "isBalanced": True,
        "answer": "no",
        "fullAnswer": "No, it is clear.",
        "types": {"detailed": "weatherVerify", "semantic": "global", "structural": "verify"},
    }
    (question,) = gqa(write(tmp_path / "testdev.json", {"20602949": item}), tmp_path / "images")
    assert question == BenchmarkQuestion(
        "20602949",
        "Is it overcast?",
        (tmp_path / "images" / "n161313.jpg",),
        ("no",),
        category="verify",
        group="n161313",
    )


def test_textvqa(tmp_path: Path) -> None:
    item = {
        "question": "what is the brand?",
        "image_id": "003a8ae2ef43b901",
        "image_classes": ["Cassette deck"],
        "answers": ["nokia"] * 9 + ["toshiba"],
        "question_tokens": ["what"],
        "question_id": 34602,
        "set_name": "val",
    }
    (question,) = textvqa(write(tmp_path / "v.json", {"data": [item]}), tmp_path / "train_images")
    assert question.id == "34602"
    assert question.pictures == (tmp_path / "train_images" / "003a8ae2ef43b901.jpg",)
    assert question.answers.count("nokia") == 9
    del item["answers"]  # as in the test split
    with pytest.raises(ValueError, match="there is no 'answers'"):
        textvqa(write(tmp_path / "v.json", {"data": [item]}), tmp_path)


def test_pope(tmp_path: Path) -> None:
    asked = {
        "question_id": 1,
        "image": "COCO_val2014_000000310196.jpg",
        "text": "Is there a snowboard in the image?",
        "label": "yes",
    }
    (question,) = pope(write(tmp_path / "p.json", json.dumps(asked) + "\n"), tmp_path)
    assert (question.id, question.answers) == ("1", ("yes",))
    assert question.pictures == (tmp_path / "COCO_val2014_000000310196.jpg",)
    with pytest.raises(ValueError, match=r"p\.json:1: the answer is 'maybe'"):
        pope(write(tmp_path / "p.json", json.dumps(asked | {"label": "maybe"})), tmp_path)


def mme_folder(folder: Path) -> Path:
    for category in (*PERCEPTION, *COGNITION):
        place = folder / category
        text = (
            "Is it red? Please answer yes or no.\tYes\nIs it blue? Please answer yes or no.\tNo\n"
        )
        if category == "artwork":  # one of those that are laid out in two folders
            write(place / "questions_answers_YN" / "0001.txt", text)
            write(place / "images" / "0001.jpg", "")
        else:
            write(place / "0001.txt", text)
            write(place / "0001.png", "")
    return folder


def test_mme(tmp_path: Path) -> None:
    questions = mme(mme_folder(tmp_path))
    assert len(questions) == 2 * 14
    assert [q.answers for q in questions[:2]] == [("yes",), ("no",)]
    assert questions[0].text == "Is it red? Please answer yes or no."
    art = next(q for q in questions if q.category == "artwork")
    assert art.pictures == (tmp_path / "artwork" / "images" / "0001.jpg",)
    assert len({q.group for q in questions}) == 14


def test_mme_that_is_not_whole_is_refused(tmp_path: Path) -> None:
    folder = mme_folder(tmp_path)
    write(folder / "OCR" / "0001.txt", "Is it red?\tYes\n")
    with pytest.raises(ValueError, match="two lines"):
        mme(folder)
    (folder / "count" / "0001.png").unlink()
    with pytest.raises(ValueError, match="a picture that is not in"):
        mme(folder)
    with pytest.raises(ValueError, match="has no folder existence"):
        mme(tmp_path / "OCR")


HEAD = "index\tquestion\thint\tA\tB\tC\tD\tanswer\tcategory\timage\tl2-category\tsplit"


def test_mmbench(tmp_path: Path) -> None:
    image = base64.b64encode(b"a picture" * 20).decode()
    rows = [
        HEAD,
        f'1\t"Which, of\nthese?"\tnan\ta cat\ta dog\t\t\tB\taction\t{image}\tx\tdev',
        "1000001\tWhich?\tnan\ta dog\ta cat\t\t\tA\taction\t1\tx\tdev",
        f"2\tHow many?\tLook.\t0\t1\t2\t3\tA\tcount\t{image}\tx\tdev",
    ]
    one, rotated, other = mmbench(write(tmp_path / "MMBench_DEV_EN.tsv", "\n".join(rows)))
    assert one.text == "Which, of\nthese?"
    assert (one.choices, one.right, one.context) == (("a cat", "a dog"), 1, "")
    assert (rotated.choices, rotated.right, rotated.group) == (("a dog", "a cat"), 0, one.group)
    assert rotated.pictures == one.pictures == (b"a picture" * 20,)
    assert (other.choices, other.context) == (("0", "1", "2", "3"), "Look.")
    with pytest.raises(ValueError, match="test split are not published"):
        mmbench(write(tmp_path / "t.tsv", "\n".join([HEAD, rows[3].replace("\tA\t", "\t\t")])))
    with pytest.raises(ValueError, match="no base64"):
        mmbench(write(tmp_path / "t.tsv", "\n".join([HEAD, rows[3].replace(image, "?" * 90)])))


def science_files(folder: Path) -> tuple[Path, Path]:
    item = {
        "question": "Which is a plant?",
        "choices": ["fern", "frog"],
        "answer": 0,
        "hint": "Figure: a fern.",
        "image": "image.png",
        "task": "closed choice",
        "grade": "grade2",
        "subject": "natural science",
        "lecture": "",
        "solution": "",
        "split": "test",
    }
    problems = {"4": item, "5": item | {"image": None, "answer": 1, "hint": ""}, "6": item}
    splits = {"train": ["6"], "test": ["4", "5"]}
    return write(folder / "problems.json", problems), write(folder / "pid_splits.json", splits)


def test_scienceqa(tmp_path: Path) -> None:
    files, images = science_files(tmp_path), tmp_path / "images" / "test"
    seen, blind = scienceqa(*files, "test", images, with_image=False)
    assert seen.pictures == (images / "4" / "image.png",)
    assert (seen.context, seen.answers, seen.right) == ("Figure: a fern.", ("fern",), 0)
    assert (blind.pictures, blind.right) == ((), 1)
    assert scienceqa(*files, "test", images, with_image=True) == [seen]
    with pytest.raises(ValueError, match=r"there is no 'minitest'.*It has train, test"):
        scienceqa(*files, "minitest", images, with_image=True)


def test_seed(tmp_path: Path) -> None:
    item = {
        "answer": "C",
        **{f"choice_{letter}": letter * 2 for letter in "abcd"},
        "data_id": "1454426_2591111986",
        "data_type": "image",
        "question": "How many towels are in the image?",
        "question_id": "101669",
        "question_type_id": 5,
    }
    film = item | {"data_type": "video", "data_id": "1.mp4"}
    whole = {"questions": [film, item], "question_type": {"Instances Counting": 5}}
    (question,) = seed(write(tmp_path / "SEED-Bench.json", whole), tmp_path / "images")
    assert question.choices == ("aa", "bb", "cc", "dd")
    assert (question.right, question.category) == (2, "Instances Counting")
    assert question.pictures == (tmp_path / "images" / "1454426_2591111986",)


def test_lines_of_ones_own(tmp_path: Path) -> None:
    items = [
        {"question": "What?", "image": "a.png", "answer": 4},
        {"question": "Which?", "choices": ["cat", "dog"], "answer": "dog", "context": "Look."},
        {"question": "Which?", "choices": ["cat", "dog"], "answer": "B"},
        {"question": "Which?", "choices": ["cat", "dog"], "answer": 1},
        {"question": "Where?", "images": ["a.png", "b.png"], "box": [0.1, 0.2, 0.3, 0.4]},
        {"question": "Who?", "answers": ["he", "she"], "id": "x", "group": "g", "category": "c"},
    ]
    found = lines(write(tmp_path / "l.jsonl", "\n".join(map(json.dumps, items))), tmp_path)
    assert found[0].answers == ("4",)
    assert [question.right for question in found[1:4]] == [1, 1, 1]
    assert found[4].answers == ("0.1 0.2 0.3 0.4",)
    assert [len(question.pictures) for question in found] == [1, 0, 0, 0, 2, 0]
    last = found[5]
    assert (last.id, last.group, last.category, last.answers) == ("x", "g", "c", ("he", "she"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"question": "?"}', "there is no 'answer'"),
        ('{"question": "?", "choices": ["a", "b"], "answer": "c"}', "none of the 2 choices"),
        ("{", r"l\.jsonl:1: no JSON"),
        ('{"question": 3, "answer": "x"}', "'question' is a int"),
    ],
)
def test_lines_that_are_not_understood_are_named(
    tmp_path: Path, content: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        lines(write(tmp_path / "l.jsonl", content), tmp_path)


@pytest.mark.parametrize(
    "read",
    [
        lambda folder: gqa(folder / "none.json", folder),
        lambda folder: pope(folder / "none.json", folder),
        lambda folder: mmbench(folder / "none.tsv"),
    ],
)
def test_a_missing_file_says_where_it_belongs(tmp_path: Path, read: Callable[[Path], Any]) -> None:
    with pytest.raises(ValueError, match=r"none\.\w+ cannot be read .*change `path` of the task"):
        read(tmp_path)


def test_a_file_of_another_format_says_what_it_has(tmp_path: Path) -> None:
    file = write(tmp_path / "x.json", {"data": []})
    with pytest.raises(ValueError, match=r"no 'questions', so this is not .* It has data"):
        seed(file, tmp_path)
    with pytest.raises(ValueError, match="is no JSON"):
        seed(write(tmp_path / "x.json", "<html>"), tmp_path)


def test_missing_pictures_are_counted_before_anything_is_asked(tmp_path: Path) -> None:
    there = write(tmp_path / "a.png", "")
    asked = [BenchmarkQuestion("1", "?", (there,)), BenchmarkQuestion("2", "?", (b"",))]
    check_pictures(asked)
    with pytest.raises(ValueError, match=r"1 of 2 picture files are missing, the first .*b\.png"):
        check_pictures([*asked, BenchmarkQuestion("3", "?", (tmp_path / "b.png",))])
