"""From a file to an experiment, or to everything that is wrong with it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path as FilePath

from pydantic import ValidationError

from lit_eve.schema.checks import check
from lit_eve.schema.drafts import Draft, complete, salvage
from lit_eve.schema.experiment import (
    ContrastiveExperiment,
    Experiment,
    TextExperiment,
    TokenizerExperiment,
    VisionLanguageExperiment,
)
from lit_eve.schema.explaining import explain
from lit_eve.schema.interpolation import interpolate
from lit_eve.schema.merging import override, read, spread_defaults
from lit_eve.schema.problems import ExperimentErrors, Problem
from lit_eve.schema.shrinking import shrink
from lit_eve.schema.trees import Mark, Node, planted
from lit_eve.schema.variations import Variations


def load(
    path: str | os.PathLike[str], overrides: Sequence[str] = (), tiny: bool = False
) -> Experiment:
    """The experiment of a file.

    Args:
        path: the YAML file.
        overrides: words such as `stages.learn.batch=64`, the later ones over the earlier.
        tiny: shrink it until it runs on a CPU in under a minute; `hardware` as overrides have it.

    Raises:
        ExperimentErrors: with everything that is wrong with it, each with its place.
    """
    problems: list[Problem] = []
    raw = override(read(FilePath(path)), overrides, problems)
    tree = interpolate(spread_defaults(raw, problems), problems)
    experiment = build(tree, problems)
    if experiment.search is not None:
        faults = list(Variations(raw, experiment.search, _build_raw).problems())
        if faults:
            raise ExperimentErrors(_in_order(faults))
    if not tiny:
        return experiment
    machine = [word for word in overrides if word.startswith(("hardware.", "hardware="))]
    return build(override(planted(shrink(experiment), tree), machine, problems), problems)


def variations(
    path: str | os.PathLike[str], overrides: Sequence[str] = (), tiny: bool = False
) -> Variations:
    """The experiment of a file as a function of what its `search:` draws.

    Args:
        path: the YAML file.
        overrides: words such as `stages.learn.batch=64`.
        tiny: shrink every trial, and their number.

    Raises:
        ExperimentErrors: with everything that is wrong with it.
        ValueError: if the file declares no search.
    """
    experiment = load(path, overrides, tiny)
    if experiment.search is None:
        raise ValueError(
            f"{path} has no `search:`, so there is nothing to draw. Add one, or train it as it is: "
            f"lit-eve run {path}"
        )
    raw = override(read(FilePath(path)), overrides, [])
    return Variations(raw, experiment.search, _build_tiny if tiny else _build_raw)


def _build_raw(tree: Node) -> Experiment:
    """The experiment of a tree as it was read, without its search."""
    problems: list[Problem] = []
    bare = tree.with_block({key: node for key, node in tree.block.items() if key != "search"})
    return build(interpolate(spread_defaults(bare, problems), problems), problems)


def _build_tiny(tree: Node) -> Experiment:
    return tiny(_build_raw(tree))


def tiny(experiment: Experiment) -> Experiment:
    """The same experiment, small enough for a CPU and a minute."""
    mark = Mark(f"{experiment.name} (tiny)", None, None, ())
    return build(planted(shrink(experiment), Node(None, mark, mark)))


def build(tree: Node, earlier: Sequence[Problem] = ()) -> Experiment:
    """The experiment that a tree describes.

    Raises:
        ExperimentErrors: with everything that is wrong with it, and what was found `earlier`.
    """
    tree = tree.with_block({key: node for key, node in tree.block.items() if key != "defaults"})
    kind = _kind(tree)
    problems = list(earlier)
    draft: Draft | None
    try:
        experiment = kind.model_validate(tree.plain(), by_name=False, by_alias=True)
        draft = complete(experiment)
    except ValidationError as error:
        faults = explain(error, kind, tree)
        problems.extend(fault.problem for fault in faults)
        draft = salvage(kind, tree, faults)
    if draft is not None:
        problems.extend(_findings(draft, tree))
    if problems:
        raise ExperimentErrors(_in_order(problems))
    return experiment


def _kind(tree: Node) -> type[Experiment]:
    """Which experiment this is meant to be: the model says, or else the stages' tasks."""
    tag = tree.at(("model", "type"))
    word = tag.value if tag else None
    if not isinstance(word, str) or word not in _KINDS:
        stages = tree.block["stages"].block if "stages" in tree.block else {}
        tasks = [stage.block["task"].value for stage in stages.values() if "task" in stage.block]
        word = next((_TASKS[task] for task in tasks if task in _TASKS), "encoder_free")
    return _KINDS[word]


_KINDS: Mapping[str, type[Experiment]] = {
    "encoder_free": VisionLanguageExperiment,
    "encoder": VisionLanguageExperiment,
    "tokenizer": TokenizerExperiment,
    "language_model": TextExperiment,
    "contrastive": ContrastiveExperiment,
}
"""Kinds of experiment by the type of their model."""
_TASKS = {"tokenizer": "tokenizer", "text": "language_model", "contrastive": "contrastive"}
"""Types of model by tasks that only they have."""


def _findings(draft: Draft, tree: Node) -> Iterator[Problem]:
    for finding in check(draft):
        if all(draft.trusts(path) for path in (finding.path, *finding.involved)):
            path, node = tree.nearest(finding.path)
            mark = node.mark if path == finding.path else node.key
            whole = (*mark.path, *finding.path[len(path) :])
            yield replace(mark, path=whole).problem(finding.message, finding.suggestion)


def _in_order(problems: Iterable[Problem]) -> list[Problem]:
    """Problems as one reads: file by file, top to bottom, then overrides; one for each place."""
    first: dict[tuple[str, str], Problem] = {}
    for problem in problems:
        first.setdefault((problem.place, problem.key), problem)
    return sorted(
        first.values(),
        key=lambda problem: (
            problem.line is None,
            problem.file if problem.line else "",
            problem.line or 0,
            problem.column or 0,
        ),
    )
