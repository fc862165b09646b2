"""Weights of a stage: which file has them, and into a model, every tensor of it or none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from lit_eve.checkpoints import newest
from lit_eve.checkpoints.files import checkpoint_name, manifest_path
from lit_eve.running.directory import RunDirectory
from lit_eve.strategies import shared_out


def find_weights(
    directory: RunDirectory, stages: Sequence[str], stage: str | None, step: int | None = None
) -> tuple[str, Path]:
    """The stage whose weights are meant, and the file they are in.

    Args:
        directory: the run.
        stages: of its experiment, in their order.
        stage: whose weights; None: the last stage that has any, finished or not.
        step: of its checkpoint; None: the final weights, or those of the newest checkpoint.

    Raises:
        ValueError: if there are none.
    """
    if stage is not None and stage not in stages:
        raise ValueError(f"the run has no stage {stage!r}. Stages: {', '.join(stages)}.")
    looked = [stage] if stage else list(reversed(stages))
    if step is not None:
        return _at_step(directory, looked, step)
    for name in looked:
        final = directory.weights(name)
        found = final if final.is_file() else newest(directory.checkpoints(name))
        if found is not None:
            return name, found
    wanted = f" of stage {stage}" if stage else ""
    raise ValueError(
        f"{directory.path} has no weights{wanted} yet, so nothing can answer. Wait for its first "
        "checkpoint, or resume it."
    )


def _at_step(directory: RunDirectory, stages: Sequence[str], step: int) -> tuple[str, Path]:
    """The one stage that has a finished checkpoint of that step, and the checkpoint."""
    places = [(name, directory.checkpoints(name) / checkpoint_name(step)) for name in stages]
    found = [(name, path) for name, path in places if manifest_path(path).is_file()]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(name for name, _ in found)
        raise ValueError(f"stages {names} all have a checkpoint of step {step}. Name one: --stage.")
    kept = [
        f"{name} {int(path.name.removeprefix('step-').split('.')[0])}"
        for name in stages
        for path in sorted(directory.checkpoints(name).glob("step-*.ckpt.json"))
    ]
    raise ValueError(
        f"{directory.path} has no checkpoint of step {step}: only the newest are kept. Choose one "
        f"of {', '.join(kept) or 'none so far'}, or leave --step out."
    )


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], file: Path) -> None:
    """Fill a model, whole or sharded, from weights that were read from `file`.

    Raises:
        ValueError: naming what is missing or unknown.
    """
    missing, unknown = model.load_state_dict(shared_out(model, weights), strict=False)
    if missing or unknown:
        raise ValueError(
            f"{file} does not hold this model: missing {missing[:5]}, unknown {unknown[:5]}. "
            "The experiment file changed since the weights were written; use the run's own."
        )
