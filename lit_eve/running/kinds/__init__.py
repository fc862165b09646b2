"""What can be run: a file for each kind of experiment, chosen by the model's `type:`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lit_eve.planning.plan import StagePlan
from lit_eve.running.kinds.foundations import ContrastiveRun, TextOnly
from lit_eve.running.kinds.kind import Feed, Kind
from lit_eve.running.kinds.tokenizer import Tokenizer
from lit_eve.running.kinds.vision_language import VisionLanguage
from lit_eve.schema import Experiment, load

__all__ = ["KINDS", "Feed", "Kind", "Tokenizer", "VisionLanguage", "kind_of", "plan_file"]

KINDS: Mapping[str, type[Kind[Any, Any]]] = {
    "encoder_free": VisionLanguage,
    "encoder": VisionLanguage,
    "tokenizer": Tokenizer,
    "language_model": TextOnly,
    "contrastive": ContrastiveRun,
}


def kind_of(experiment: Experiment) -> type[Kind[Any, Any]]:
    """What runs an experiment."""
    return KINDS[experiment.model.type]


def plan_file(
    file: Path, overrides: Sequence[str], *, tiny: bool = False, devices: int | None = None
) -> list[StagePlan]:
    """The plan of a file, without its data.

    Args:
        file: the experiment.
        overrides: `a.b=1` each.
        tiny: shrink it first.
        devices: to plan for; the file's own if None.
    """
    experiment = load(file, overrides, tiny=tiny)
    hardware = experiment.hardware
    own = 1 if hardware.devices == "auto" else hardware.devices
    return kind_of(experiment).expect(experiment, devices or own * hardware.nodes)
