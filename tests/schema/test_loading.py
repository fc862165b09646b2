from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lit_eve.schema import (
    Experiment,
    ExperimentErrors,
    Problem,
    TokenizerExperiment,
    VisionLanguageExperiment,
    load,
)
from lit_eve.schema.addresses import Address
from lit_eve.schema.loading import build
from lit_eve.schema.problems import dotted
from lit_eve.schema.schedules import Schedule, TrainPart
from lit_eve.schema.trees import Node, parse, planted
from lit_eve.schema.units import Budget, Span

Write = Callable[..., Path]


def problems(file: Path, *overrides: str) -> list[Problem]:
    with pytest.raises(ExperimentErrors) as caught:
        load(file, overrides)
    return list(caught.value.problems)


def only(file: Path, *overrides: str) -> Problem:
    found = problems(file, *overrides)
    assert len(found) == 1, "\n".join(map(str, found))
    return found[0]


def vision_language(file: Path, *overrides: str) -> VisionLanguageExperiment:
    experiment = load(file, overrides)
    assert isinstance(experiment, VisionLanguageExperiment)
    return experiment


def test_units_become_numbers(quickstart: Path) -> None:
    experiment = vision_language(quickstart)
    learn = experiment.trained["learn"]
    assert learn.budget == Budget(90_000, "samples")
    assert learn.optimizer.warmup == Span(0.03, "share")
    assert learn.train == {
        "patch_embedding": TrainPart(lr=6e-4),
        "language_model": TrainPart(lr=6e-4, thaw=200),
    }
    assert experiment.datasets["scenes"].model_dump()["train"] == 24_000
    assert experiment.evaluate.every == 200


def test_stages_keep_their_order_and_start_from_the_defaults(quickstart: Path) -> None:
    experiment = vision_language(quickstart)
    assert list(experiment.stages) == ["align", "learn"]
    assert {stage.batch for stage in experiment.trained.values()} == {128}
    assert {stage.optimizer.betas for stage in experiment.trained.values()} == {(0.9, 0.98)}


def test_the_model_decides_the_kind_of_experiment(sample: Path) -> None:
    experiment = load(sample)
    tokenizer = experiment.model.type == "tokenizer"
    assert isinstance(experiment, TokenizerExperiment if tokenizer else VisionLanguageExperiment)


def test_what_is_written_reads_back_equal(sample: Path, write: Write) -> None:
    experiment = load(sample)
    again = load(write(experiment.to_yaml(), "resolved.yaml"))
    assert again == experiment
    assert again.to_yaml() == experiment.to_yaml()


def test_an_experiment_cannot_be_changed(quickstart: Path) -> None:
    with pytest.raises(ValueError, match="frozen"):
        load(quickstart).seed = 3


FIVE = """\
name: five
model:
  type: encoder_free
  language_model: {type: lama, width: 128, depth: 4, heads: 4}
  text: {type: trained, vocabulary: four hundred}
  patch_embedding: {type: eve, patch: 8, pool: 2, width: 128, heads: 7}
datasets:
  scenes: {type: scenes, train: 24k, sides: [32, 96], colour: red}
stages:
  learn:
    task: language
    data: {scene: 1.0}
    for: 90k pictures
    batch: 128
    train: {patch_embedding: 6e-4}
"""


def test_all_mistakes_are_told_at_once_each_with_its_place_and_way_out(write: Write) -> None:
    file = write(FIVE)
    found = {(p.line, p.column, p.key): p for p in problems(file)}
    expected = {
        (
            4,
            26,
            "model.language_model.type",
        ): "Did you mean 'llama'? Types here: llama, pretrained.",
        (5, 37, "model.text.vocabulary"): "",
        (6, 70, "model.patch_embedding.heads"): "Choose one of 1, 2, 4, 8",
        (8, 55, "datasets.scenes.colour"): "Keys here: type, train, val, test, cell, sides",
        (12, 12, "stages.learn.data.scene"): "Did you mean 'scenes'?",
        (13, 10, "stages.learn.for"): "Units: samples, tokens, steps, epochs.",
    }
    places = {(line, key) for line, _, key in found}
    assert places == {(line, key) for line, _, key in expected}
    for (line, _, key), advice in expected.items():
        problem = next(p for p in found.values() if (p.line, p.key) == (line, key))
        assert advice in problem.suggestion
        assert problem.file == str(file)
        text = FIVE.splitlines()[line - 1]
        assert problem.column is not None
        assert text[problem.column - 1 :].strip()


def test_a_problem_reads_as_file_line_column_key_message_and_advice(write: Write) -> None:
    file = write(FIVE.replace("lama", "llama").replace("four hundred", "400"))
    assert str(problems(file)[-1]) == (
        f"{file}:13:10: stages.learn.for: there is no unit 'pictures' in '90k pictures'. "
        "Units: samples, tokens, steps, epochs."
    )


@pytest.mark.parametrize(
    ("override", "message", "suggestion"),
    [
        ("modle={}", "unknown key", "Did you mean 'model'?"),
        ("model.language_model.widht=3", "unknown key", "Did you mean 'width'?"),
        ("model.type=encoderfree", "there is no type", "Did you mean 'encoder_free'?"),
        ("model.text={type: byte}", "there is no type", "Did you mean 'bytes'?"),
        ("model.text=bytes", "expected a block, found the text", "Write {type: trained, ...}."),
        ("model.images={size: {edge: 64}}", "`type` is missing", "one of native, longest_edge"),
        ("model.language_model.width=wide", "expected a whole number, found the text 'wide'", ""),
        ("model.language_model.width=1.5", "expected a whole number", ""),
        ("model.language_model.width=-8", "expected a number above 0, found the number -8", ""),
        ("model.language_model.tie_embeddings=no", "expected true or false", "true and false"),
        ("model.images.mean=[0.5, 0.5]", "expected 3 values, found 2", "Write one after another"),
        ("model.images.mean=0.5", "expected a list, found the number 0.5", "Write [a, b]."),
        ("model.teacher.from=", "expected text, found nothing", "in quotes"),
        ("model.teacher.from=''", "the text is empty", "leave the key out"),
        ("name=a/b", "'a/b' is no name", "Use letters, digits, _ and -"),
        ("name=7", "expected text, found the number 7", "in quotes"),
        ("datasets={scenes: null}", "there is nothing in it", "Add at least one entry."),
        ("datasets={a b: {type: scenes}}", "'a b' is no name", "Use letters, digits"),
        ("stages.learn.train=3", "expected a block of keys, found the number 3", "indent"),
        ("stages.learn.precision=bf61", "expected one of float32, bf16, fp16", "mean 'bf16'?"),
        ("stages.learn.optimizer.betas=[0.9, 1.0]", "expected a number below 1", ""),
        ("stages.learn.optimizer.warmup=0.03", "expected steps or a share", "write 3%."),
        ("stages.learn.train.language_model.lr=0", "expected a number above 0", ""),
        ("stages.learn.train={language_model: {rate: 1}}", "unknown key", "Keys here: lr, thaw"),
        ("evaluate.every=10 epochs", "counts 'epochs'", "Write 10 steps."),
        ("hardware={devices: all}", "expected auto, or a whole number of at least 1", ""),
        ("hardware={workers: -1}", "expected auto, or a whole number of at least 0", ""),
        ("tracking=none", "expected a block, found the text 'none'", "Write {type: mlflow, ...}."),
        ("seed=.nan", "expected a whole number, found the text '.nan'", ""),
        ("loss={language: 1e999}", "expected a finite number", ""),
    ],
)
def test_a_wrong_value_is_told_what_was_expected_and_found(
    quickstart: Path, override: str, message: str, suggestion: str
) -> None:
    matching = [p for p in problems(quickstart, override) if message in p.message]
    assert matching, "\n".join(map(str, problems(quickstart, override)))
    assert suggestion in matching[0].suggestion
    assert matching[0].place.startswith("override ")


@pytest.mark.parametrize(
    ("line", "key", "advice"),
    [
        ("name: quickstart\n", "name", "Add it."),
        ("    for: 16k samples\n", "stages.align.for", "Add `for: 16k samples`"),
        ("  batch: 128\n", "stages.align.batch", "Add `batch: 128`, here or in `defaults:`."),
        (
            "    data: {scenes.captions: 1.0}\n",
            "stages.align.data",
            "Add `data: {dataset: weight}`.",
        ),
        ("    task: alignment\n", "stages.align.task", "Add `task: language`"),
    ],
)
def test_a_missing_key_is_named_with_an_example(
    quickstart: Path, line: str, key: str, advice: str
) -> None:
    quickstart.write_text(quickstart.read_text().replace(line, "", 1))
    problem = next(p for p in problems(quickstart) if p.key == key)
    assert advice in problem.suggestion
    assert problem.line is not None


def test_a_misspelt_key_is_not_also_missing(quickstart: Path) -> None:
    quickstart.write_text(quickstart.read_text().replace("  batch: 128", "  batsh: 128"))
    assert only(quickstart).suggestion == "Did you mean 'batch'?"


def test_a_mistake_in_the_defaults_is_told_once_where_it_stands(quickstart: Path) -> None:
    text = quickstart.read_text().replace("schedule: cosine, warmup", "schedule: cosin, warmup")
    quickstart.write_text(text)
    problem = only(quickstart)
    assert (problem.line, problem.key) == (14, "defaults.optimizer.schedule")
    assert "Did you mean 'cosine'?" in problem.suggestion


def test_a_wrong_part_neither_hides_nor_causes_other_messages(quickstart: Path) -> None:
    found = problems(
        quickstart,
        "model.patch_embedding.poool=3",  # an unknown key in the model
        "model.patch_embedding.heads=7",  # does not divide the width, all the same
        "datasets.scenes.cell=x",  # wrong by itself: nothing is said about fitting cells
    )
    assert [p.key for p in problems_sorted(found)] == [
        "datasets.scenes.cell",
        "model.patch_embedding.heads",
        "model.patch_embedding.poool",
    ]


def test_nothing_is_said_about_the_default_of_a_misspelt_key(quickstart: Path) -> None:
    text = quickstart.read_text().replace("pool: 2", "pool: 4").replace("cell: 16", "cel: 32")
    quickstart.write_text(text.replace("[32, 96]", "[32, 64]"))
    assert only(quickstart).suggestion == "Did you mean 'cell'?"


def test_an_interpolation_of_nothing_is_not_also_a_wrong_value(quickstart: Path) -> None:
    problem = only(quickstart, "model.patch_embedding.width=${model.width}")
    assert problem.message == "${model.width} names nothing in this experiment"


def test_text_with_dollars_and_braces_is_written_so_that_it_reads_back(
    quickstart: Path, write: Write
) -> None:
    experiment = load(quickstart, ["question='worth \\${5}?'"])
    assert experiment.question == "worth ${5}?"
    assert load(write(experiment.to_yaml(), "again.yaml")) == experiment


def problems_sorted(found: list[Problem]) -> list[Problem]:
    return sorted(found, key=lambda problem: problem.key)


def test_no_message_speaks_of_the_machinery(quickstart: Path) -> None:
    overrides = ["model=3", "loss.alignment.weight={}", "stages.learn.train=[1]", "seed=[]"]
    text = " ".join(map(str, problems(quickstart, *overrides)))
    assert not re.search(r"pydantic|Input should|dict|str_|tuple|NoneType|instance", text)


leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text("ab1:${}", max_size=5),
)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=3), inner),
    max_leaves=4,
)
PATHS = [
    "model",
    "model.language_model",
    "model.language_model.heads",
    "model.images",
    "loss.alignment.weight",
    "datasets",
    "datasets.scenes.sides",
    "datasets.scenes.kinds",
    "defaults",
    "defaults.optimizer.warmup",
    "stages",
    "stages.learn",
    "stages.learn.train",
    "stages.learn.data",
    "hardware",
    "tracking",
    "evaluate.every",
]


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(PATHS), values)
def test_whatever_is_written_is_an_experiment_or_a_list_of_problems(
    quickstart: Path, path: str, value: object
) -> None:
    found: Sequence[Problem] = ()
    try:
        load(quickstart, [f"{path}={json.dumps(value)}"])
    except ExperimentErrors as errors:
        found = errors.problems
    assert all(problem.message for problem in found)
    assert not re.search(r"pydantic|Input should|something else", " ".join(map(str, found)))


def test_an_address_keeps_its_environment_reference(
    sample: Path, monkeypatch: pytest.MonkeyPatch, write: Write
) -> None:
    monkeypatch.setenv("MLFLOW_URI", "http://user:secret@server")
    file = write(
        sample.read_text() + ""
        if "tracking" in sample.read_text()
        else sample.read_text() + 'tracking: {type: mlflow, uri: "${oc.env:MLFLOW_URI}/x"}\n',
        "with_tracking.yaml",
    )
    experiment = load(file)
    if experiment.tracking.type != "mlflow":
        return
    assert "secret" not in experiment.to_yaml()
    assert experiment.tracking.uri.resolved().startswith("http://user:secret@server")


def test_an_address_falls_back_or_says_which_variable_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("NOWHERE", raising=False)
    assert Address("${oc.env:NOWHERE, data}/x").resolved() == "data/x"
    with pytest.raises(ValueError, match=r"needs the environment variable NOWHERE.*Set it"):
        Address("${oc.env:NOWHERE}").resolved()


def test_the_environment_is_read_nowhere_else(quickstart: Path) -> None:
    problem = only(quickstart, "question=${oc.env:HOME}?")
    assert problem.message == "the environment is not read here"
    assert "Only paths, hub names and addresses" in problem.suggestion


def test_a_number_may_be_a_schedule(quickstart: Path) -> None:
    experiment = vision_language(
        quickstart, "loss.language={schedule: linear, from: 0, to: 1, over: 12%}"
    )
    assert experiment.loss.language == Schedule(
        schedule="linear", start=0, end=1, over=Span(0.12, "share")
    )


def test_python_may_use_its_own_names_but_a_file_may_not(quickstart: Path) -> None:
    problem = only(quickstart, "stages.learn.previous=align")
    assert (problem.message, problem.key) == ("unknown key", "stages.learn.previous")


def test_an_experiment_is_a_plain_value(quickstart: Path) -> None:
    first, second = load(quickstart), load(quickstart)
    assert isinstance(first, Experiment)
    assert first == second
    assert first is not second


def spoilt(tree: Node, path: tuple[str, ...]) -> Node:
    """The tree with something impossible at `path`, in the same place."""
    if not path:
        impossible = "wrong" if isinstance(tree.value, list) else [{"wrong": 1}]
        return planted(impossible, tree)
    key, *rest = path
    return tree.with_block({**tree.block, key: spoilt(tree.block[key], tuple(rest))})


def paths_of(tree: Node, above: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Every key of a tree, but no list items."""
    inner = (paths_of(node, (*above, key)) for key, node in tree.block.items())
    return [*([above] if above else []), *(path for paths in inner for path in paths)]


def test_one_wrong_value_is_one_message_whatever_hangs_on_it(sample: Path) -> None:
    tree = parse(load(sample).to_yaml(), "x.yaml")
    for path in paths_of(tree):
        with pytest.raises(ExperimentErrors) as caught:
            build(spoilt(tree, path))
        assert [problem.key for problem in caught.value.problems] == [dotted(path)], caught.value
