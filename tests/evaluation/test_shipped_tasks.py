"""Every shipped task finds its questions where its authors put them, and can judge an answer."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from lit_eve.assemble import benchmarks as assemble
from lit_eve.metrics.bootstrap import estimates
from lit_eve.metrics.judging import Expected
from lit_eve.schema.benchmarks import load_benchmark
from tests.data.benchmarks.test_formats import HEAD, mme_folder, science_files, vqa_files, write

FOLDER = Path(__file__).parents[2] / "experiments" / "tasks"


def vqav2(root: Path) -> None:
    questions, annotations = vqa_files(root)
    questions.rename(root / "v2_OpenEnded_mscoco_val2014_questions.json")
    annotations.rename(root / "v2_mscoco_val2014_annotations.json")


def gqa(root: Path) -> None:
    item = {"question": "Is it?", "imageId": "n1", "answer": "no", "types": {}}
    write(root / "testdev_balanced_questions.json", {"1": item})


def textvqa(root: Path) -> None:
    item = {"question": "What?", "image_id": "a", "answers": ["x"] * 10, "question_id": 1}
    write(root / "TextVQA_0.5.1_val.json", {"data": [item]})


def pope(root: Path) -> None:
    item = {"question_id": 1, "image": "a.jpg", "text": "Is there?", "label": "yes"}
    for kind in ("random", "popular", "adversarial"):
        write(root / f"coco_pope_{kind}.json", json.dumps(item))


def mme(root: Path) -> None:
    mme_folder(root)


def mmbench(root: Path) -> None:
    image = base64.b64encode(b"x" * 99).decode()
    write(root / "MMBench_DEV_EN.tsv", f"{HEAD}\n1\tWhich?\t\ta\tb\t\t\tB\tc\t{image}\tx\tdev\n")


def scienceqa(root: Path) -> None:
    science_files(root)


def seed(root: Path) -> None:
    item = {f"choice_{letter}": letter for letter in "abcd"}
    item |= {"answer": "A", "data_id": "1", "data_type": "image", "question": "?"}
    item |= {"question_id": "1"}
    write(root / "SEED-Bench.json", {"questions": [item], "question_type": {}})


@pytest.mark.parametrize(
    ("make", "tasks"),
    [
        (vqav2, ["vqav2"]),
        (gqa, ["gqa"]),
        (textvqa, ["textvqa"]),
        (pope, ["pope_random", "pope_popular", "pope_adversarial"]),
        (mme, ["mme"]),
        (mmbench, ["mmbench"]),
        (scienceqa, ["scienceqa"]),
        (seed, ["seed"]),
    ],
)
def test_a_shipped_task_reads_and_judges(
    tmp_path: Path, make: Callable[[Path], None], tasks: list[str]
) -> None:
    for name in tasks:
        benchmark = load_benchmark(FOLDER / f"{name}.yaml")
        folder = tmp_path / benchmark.data.path.resolved()  # type: ignore[union-attr]
        make(folder)
        questions, files = assemble.questions(benchmark, tmp_path)
        assert questions
        assert all(file.is_file() for file in files)
        judge = assemble.judge(benchmark)
        right = [
            judge.judge(
                Expected(q.answers, q.choices, q.right, q.category),
                chr(ord("A") + q.right) if q.choices else q.answers[0],
            )
            for q in questions
        ]
        found, _ = estimates(
            judge, right, [q.group for q in questions], [q.category for q in questions], 0, 20
        )
        best = {"perception": 2000.0, "cognition": 800.0, "unread": 0.0, "yes": found_yes(name)}
        for score, estimate in found.items():
            assert estimate.value == pytest.approx(best.get(score, 1.0)), (name, score)


def found_yes(name: str) -> float:
    """How often yes is right in the files above."""
    return 1.0 if name.startswith("pope") else 0.5
