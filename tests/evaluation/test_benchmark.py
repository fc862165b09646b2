"""A task from its file to scores on disk, put to a small model."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from lit_eve.cli import use
from lit_eve.evaluation.benchmark import Result, evaluate_task, prepare, question_of, show
from lit_eve.inference.assistant import Assistant, Decoding
from lit_eve.running.directory import RunDirectory
from lit_eve_data.benchmarks.base import BenchmarkQuestion
from tests.inference.tiny import picture, png, tiny_assistant, write_picture

CHOICES = ["a cat", "a dog", "two dogs and a cat"]
LETTERS = 'prompt: "{context} {question}\\n{choices}"\n'


@pytest.fixture(scope="module")
def assistant() -> Assistant:
    return tiny_assistant()


def quiet() -> Console:
    return Console(file=io.StringIO(), width=100)


def task(folder: Path, metric: str, *lines: dict[str, Any], more: str = "") -> Path:
    write_picture(folder / "data" / "a.png")
    (folder / "data" / "questions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (folder / "task.yaml").write_text(
        f"name: mine\nabout: Mine.\ndata: {{type: lines, path: data}}\nmetric: {metric}\n"
        f"max_new_tokens: 4\n{more}"
    )
    return folder / "task.yaml"


def evaluated(assistant: Assistant, file: Path) -> Result:
    prepared = prepare(file, file.parent, None, quiet())
    return evaluate_task(assistant, prepared, RunDirectory(file.parent / "run"), quiet())


def test_answers_and_result_are_kept_with_all_that_a_repetition_needs(
    assistant: Assistant, tmp_path: Path
) -> None:
    asked = {"question": "What?", "image": "a.png"}
    file = task(tmp_path, "{type: exact_match}", asked | {"answer": "x"}, asked | {"answer": "y"})
    prepared = prepare(file, tmp_path, None, quiet())
    question = question_of(prepared.questions[0], prepared.benchmark, 0)
    said = next(assistant.answers([question], Decoding(4))).text
    task(tmp_path, "{type: exact_match}", asked | {"answer": said}, asked | {"answer": "y"})
    result = evaluated(assistant, file)
    assert result.overall["accuracy"].value == 0.5
    folder = tmp_path / "run" / "learn" / "evaluations" / "mine"
    lines = [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]
    assert [line["answer"] for line in lines] == [said, said]
    assert [line["points"]["right"] for line in lines] == [1, 0]
    kept = json.loads((folder / "result.json").read_text())
    assert kept["scores"]["accuracy"]["value"] == 0.5
    assert (kept["questions"], kept["groups"]) == (2, 1)
    assert kept["task"]["metric"] == {"type": "exact_match", "articles": True}
    assert len(kept["data"]["questions.jsonl"]) == 64
    assert {"lit-eve", "torch", "transformers"} <= set(kept["versions"])
    assert kept["stage"] == "learn"


@pytest.mark.parametrize("per", ["answer", "token", "character"])
def test_the_likeliest_choice_is_taken(assistant: Assistant, tmp_path: Path, per: str) -> None:
    line = {"question": "What?", "image": "a.png", "choices": CHOICES, "answer": 0}
    other = line | {"question": "Who?", "choices": CHOICES[:2]}
    metric = f"{{type: multiple_choice, by: likelihood, per: {per}}}"
    file = task(tmp_path, metric, line, other)
    prepared = prepare(file, tmp_path, None, quiet())
    questions = [question_of(q, prepared.benchmark, 0) for q in prepared.questions]
    one = [
        next(assistant.likelihoods(questions[:1], [[choice]]))[0] for choice in CHOICES
    ]  # each alone
    lengths = {
        "answer": [1, 1, 1],
        "token": [likelihood.tokens for likelihood in one],
        "character": [len(choice) for choice in CHOICES],
    }[per]
    worth = [found.total / length for found, length in zip(one, lengths, strict=True)]
    evaluated(assistant, file)
    answers = tmp_path / "run" / "learn" / "evaluations" / "mine" / "answers.jsonl"
    first, second = map(json.loads, answers.read_text().splitlines())
    assert first["likelihoods"] == pytest.approx(worth, rel=1e-5)
    assert first["answer"] == "ABC"[worth.index(max(worth))]
    assert len(second["likelihoods"]) == 2


def test_letters_and_context_stand_in_the_prompt(tmp_path: Path) -> None:
    line = {"question": "What?", "choices": CHOICES, "answer": "B", "context": "Look."}
    file = task(tmp_path, "{type: multiple_choice}", line, more=LETTERS)
    prepared = prepare(file, tmp_path, None, quiet())
    turn = question_of(prepared.questions[0], prepared.benchmark, 0).turns[0]
    assert turn["content"] == "Look. What?\nA. a cat\nB. a dog\nC. two dogs and a cat"


def test_pictures_of_every_kind_are_read_and_stand_where_they_belong(tmp_path: Path) -> None:
    file = task(tmp_path, "{type: exact_match}", {"question": "?", "answer": "x"})
    benchmark = prepare(file, tmp_path, None, quiet()).benchmark
    pictures = (tmp_path / "data" / "a.png", png(16, 32), picture(16, 48))
    history = ({"role": "user", "content": "<image>"}, {"role": "assistant", "content": "4"})
    asked = BenchmarkQuestion("1", "So?", pictures, history=history)
    question = question_of(asked, benchmark, 0)
    assert [image.width for image in question.images] == [24, 32, 48]
    assert question.turns[-1]["content"] == "<image>\n<image>\nSo?"
    with pytest.raises(ValueError, match="the picture of question 1 is no picture"):
        question_of(replace(asked, pictures=(b"x",)), benchmark, 0)


def test_what_is_missing_is_told_before_anything_is_asked(tmp_path: Path) -> None:
    line = {"question": "What?", "image": "none.png", "answer": "x"}
    with pytest.raises(ValueError, match="1 of 1 picture files are missing"):
        prepare(task(tmp_path, "{type: exact_match}", line), tmp_path, None, quiet())
    with pytest.raises(ValueError, match="asks nothing"):
        prepare(task(tmp_path, "{type: exact_match}"), tmp_path, None, quiet())


def test_scores_are_shown_with_their_intervals(assistant: Assistant, tmp_path: Path) -> None:
    lines = [{"question": f"{n}?", "answer": "yes", "image": "a.png"} for n in range(3)]
    result = evaluated(assistant, task(tmp_path, "{type: yes_no}", *lines))
    console = quiet()
    show([result], console)
    assert isinstance(console.file, io.StringIO)
    said = console.file.getvalue()
    assert "mine" in said
    assert all(name in said for name in ("f1", "accuracy", "95 % interval", " to "))


def test_the_verb_puts_tasks_to_a_run(
    tiny_run: Path, tmp_path: Path, datasets: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepared = next(folder for folder in datasets.glob("scenes-*") if folder.is_dir())
    (tmp_path / "small.yaml").write_text(
        "name: small\nabout: Scenes.\nmetric: {type: kinds}\nmax_new_tokens: 4\n"
        f"data: {{type: litdata, path: {prepared.name}}}\n"
    )
    use.evaluate(
        str(tiny_run), tasks="small", task_dir=tmp_path, stage="read", questions=1, data=datasets
    )
    folder = tiny_run / "read" / "evaluations" / "small"
    kept = json.loads((folder / "result.json").read_text())
    assert kept["task"]["data"]["each"] == 1
    assert set(kept["categories"]["caption/digits"]) == {"right", "f1"}
    assert kept["questions"] == len(kept["categories"])
    assert str(folder) in capsys.readouterr().out.replace("\n", "")
    with pytest.raises(ValueError, match="no task 'smal'"):
        use.evaluate(str(tiny_run), tasks="smal", task_dir=tmp_path)
