"""From a file to an experiment, or to everything that is wrong with it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path as FilePath

from pydantic import ValidationError

from lit_eve.schema.checks import check
from lit_eve.schema.drafts import Draft, complete, salvage
from lit_eve.schema.experiment import Experiment, TokenizerExperiment, VisionLanguageExperiment
from lit_eve.schema.explaining import explain
from lit_eve.schema.interpolation import interpolate
from lit_eve.schema.merging import override, read, spread_defaults
from lit_eve.schema.problems import ExperimentErrors, Problem
from lit_eve.schema.shrinking import shrink
from lit_eve.schema.trees import Node


def load(
    path: str | os.PathLike[str], overrides: Sequence[str] = (), tiny: bool = False
) -> Experiment:
    """The experiment of a file.

    Args:
        path: the YAML file.
        overrides: words such as `stages.learn.batch=64`, the later ones over the earlier.
        tiny: shrink it until it runs on a CPU in under a minute.

    Raises:
        ExperimentErrors: with everything that is wrong with it, each with its place.
    """
    tree = override(read(FilePath(path)), overrides)
    experiment = build(interpolate(spread_defaults(tree)))
    return shrink(experiment) if tiny else experiment


def build(tree: Node) -> Experiment:
    """The experiment that a tree describes.

    Raises:
        ExperimentErrors: with everything that is wrong with it.
    """
    tree = tree.with_block({key: node for key, node in tree.block.items() if key != "defaults"})
    kind = _kind(tree)
    problems: list[Problem] = []
    try:
        experiment = kind.model_validate(tree.plain(), by_name=False, by_alias=True)
        draft = complete(experiment)
    except ValidationError as error:
        faults = explain(error, kind, tree)
        problems.extend(fault.problem for fault in faults)
        draft = salvage(kind, tree.plain(), faults)
    problems.extend(_findings(draft, tree))
    if problems:
        raise ExperimentErrors(sorted(dict.fromkeys(problems), key=_order))
    return experiment


def _kind(tree: Node) -> type[Experiment]:
    tag = tree.at(("model", "type"))
    if tag is not None and tag.value == "tokenizer":
        return TokenizerExperiment
    return VisionLanguageExperiment


def _findings(draft: Draft, tree: Node) -> list[Problem]:
    problems = []
    for finding in check(draft):
        resting_on = (finding.path, *finding.involved)
        if any(_touches(path, wrong) for path in resting_on for wrong in draft.tainted):
            continue
        path, node = tree.nearest(finding.path)
        mark = node.mark if path == finding.path else node.key
        problems.append(mark.problem(finding.message, finding.suggestion))
    return problems


def _touches(one: tuple[str | int, ...], other: tuple[str | int, ...]) -> bool:
    shorter = min(len(one), len(other))
    return one[:shorter] == other[:shorter]


def _order(problem: Problem) -> tuple[str, int, int]:
    return problem.file, problem.line or 0, problem.column or 0
