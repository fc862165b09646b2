"""What has to fit between the parts of an experiment, each mistake with its way out.

What a block can tell by itself is in its own `findings`. Every check here looks only at parts in
which nothing is wrong, so a typo in one place does not hide, or cause, a message in another.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from lit_eve.schema.addresses import ENVIRONMENT, Address
from lit_eve.schema.base import Finding, Path, Strict
from lit_eve.schema.datasets import Scenes
from lit_eve.schema.drafts import Draft
from lit_eve.schema.experiment import Experiment, TokenizerExperiment, VisionLanguageExperiment
from lit_eve.schema.images import Size
from lit_eve.schema.models import EncoderFree, Model
from lit_eve.schema.patch_embeddings import num_tokens
from lit_eve.schema.problems import advise, nearest
from lit_eve.schema.running import Hardware
from lit_eve.schema.schedules import Schedule
from lit_eve.schema.training import LanguageStage, Stage


def check(draft: Draft) -> Iterator[Finding]:
    """Everything that does not fit, among what is right by itself."""
    experiment = draft.experiment
    for path, block in draft.blocks():
        for finding in block.findings():
            involved = tuple((*path, *other) for other in finding.involved)
            yield replace(finding, path=(*path, *finding.path), involved=involved)
        yield from _environment(path, block)
        if isinstance(block, Schedule):
            yield from _schedule_fits(path, block, experiment)
    for name, stage in experiment.stages.items():
        path = ("stages", name)
        yield from _data(path, stage, draft)
        yield from _order(path, stage, draft)
        yield from _thaw(path, stage)
        yield from _precision(path, stage, experiment.hardware)
        yield from _parts(path, stage, experiment.model)
    yield from _sizes(experiment)
    if isinstance(experiment, VisionLanguageExperiment):
        yield from _vision_language(experiment, draft.names["stages"])
    if isinstance(experiment, TokenizerExperiment):
        yield from _tokenizer(experiment)
        yield from _discriminator_learns(experiment)


def _vision_language(
    experiment: VisionLanguageExperiment, names: tuple[str, ...]
) -> Iterator[Finding]:
    yield from _text(experiment.model)
    yield from _layers(experiment.model)
    yield from _alignment_used(experiment, names)
    for name, stage in experiment.stages.items():
        yield from _alignment_has(("stages", name), stage, experiment)
        yield from _rows(("stages", name), stage, experiment)


def _tokenizer(experiment: TokenizerExperiment) -> Iterator[Finding]:
    for key in ("compile", "activation_checkpointing"):
        if getattr(experiment.hardware, key):
            yield Finding(
                ("hardware", key),
                "an image tokenizer has no decoder blocks that this could work on",
                "Take it out.",
                (("model", "type"),),
            )
    for name, stage in experiment.stages.items():
        if stage.budget.unit == "tokens":
            yield Finding(
                ("stages", name, "for"),
                "an image tokenizer reads pictures, not tokens",
                "Count samples, steps or epochs.",
                (("model", "type"),),
            )


def _discriminator_learns(experiment: TokenizerExperiment) -> Iterator[Finding]:
    """A discriminator that never learns tells nothing."""
    stages = experiment.stages.values()
    if experiment.model.discriminator and not any("discriminator" in s.train for s in stages):
        yield Finding(
            ("model", "discriminator"),
            "no stage trains it, so it would judge at random",
            "Add `discriminator: 1e-4` to `train:` of a stage, or take it out.",
            tuple(("stages", name, "train") for name in experiment.stages),
        )


def _environment(path: Path, block: Strict) -> Iterator[Finding]:
    """A reference that nobody would resolve."""
    for name, field in type(block).model_fields.items():
        value = getattr(block, name)
        if isinstance(value, str) and not isinstance(value, Address) and ENVIRONMENT.search(value):
            yield Finding(
                (*path, str(field.validation_alias or name)),
                "the environment is not read here",
                "Only paths, hub names and addresses may refer to it.",
            )


def _data(path: Path, stage: Stage, draft: Draft) -> Iterator[Finding]:
    """Datasets and their subsets exist."""
    known = draft.names["datasets"]
    for entry in stage.data:
        here = (*path, "data", entry)
        name, _, subset = entry.partition(".")
        if name not in known:
            yield Finding(
                here,
                f"there is no dataset {name!r}",
                advise(name, known, "datasets"),
                (("datasets", nearest(name, known) or name, "type"),),
            )
            continue
        dataset = draft.experiment.datasets.get(name)
        if subset and isinstance(dataset, Scenes) and subset not in dataset.subsets:
            yield Finding(
                here,
                f"{name} has no subset {subset!r}",
                advise(subset, dataset.subsets, "subsets"),
                (("datasets", name, "kinds"), ("datasets", name, "type")),
            )


def _order(path: Path, stage: Stage, draft: Draft) -> Iterator[Finding]:
    """A stage starts from one that ran before it."""
    if stage.previous is None:
        return
    names = draft.names["stages"]
    earlier = names[: names.index(str(path[-1]))]
    if stage.previous in earlier:
        return
    here = (*path, "from")
    if stage.previous in names:
        message = f"{stage.previous!r} does not run before this stage"
    else:
        message = f"there is no stage {stage.previous!r}"
    yield Finding(
        here,
        message,
        advise(stage.previous, earlier, "stages before this one"),
        (("stages", stage.previous),),
    )


def num_steps(stage: Stage) -> int | None:
    """Optimizer steps of a stage, where its length says so without looking at the data."""
    match stage.budget.unit:
        case "steps":
            return int(stage.budget.amount)
        case "samples":
            return max(1, round(stage.budget.amount / stage.batch))
    return None


def _thaw(path: Path, stage: Stage) -> Iterator[Finding]:
    """A part thaws before the stage is over."""
    steps = num_steps(stage)
    for name, part in stage.train.items():
        if steps is not None and part.thaw >= steps:
            yield Finding(
                (*path, "train", name, "thaw"),
                f"the stage ends after {steps} steps, so this part would never learn",
                "Thaw it earlier, or leave the part out to keep it frozen.",
                ((*path, "for"), (*path, "batch")),
            )


def _schedule_fits(path: Path, schedule: Schedule, experiment: Experiment) -> Iterator[Finding]:
    """A schedule in steps arrives before the training ends."""
    if schedule.over.unit != "steps":
        return
    own = experiment.stages.get(str(path[1])) if path[0] == "stages" else None
    stages = [own] if own else list(experiment.stages.values())
    known = [steps for stage in stages if (steps := num_steps(stage)) is not None]
    if not known or len(known) < len(stages) or schedule.over.amount <= max(known):
        return
    yield Finding(
        (*path, "over"),
        f"a way of {schedule.over.amount} steps never ends in a training of {max(known)}",
        "Give a share of the stage instead: `over: 100%`.",
        tuple(
            ("stages", name, key)
            for name in (path[1:2] if own else experiment.stages)
            for key in ("for", "batch")
        ),
    )


def _precision(path: Path, stage: Stage, hardware: Hardware) -> Iterator[Finding]:
    """The device can do the arithmetic."""
    if hardware.accelerator == "cpu" and stage.precision == "fp16":
        yield Finding(
            (*path, "precision"),
            "a CPU cannot train in fp16",
            "Write float32 or bf16.",
            (("hardware", "accelerator"),),
        )


def _parts(path: Path, stage: Stage, model: Model) -> Iterator[Finding]:
    """What is to learn is a part of the model, and the task's loss reaches it."""
    missing = [part for part in model.parts if getattr(model, part, part) is None]
    known = [part for part in model.parts if part not in missing]
    for name in stage.train:
        here, part = (*path, "train", name), name.partition(".")[0]
        involved: tuple[Path, ...] = (("model", part), ("model", "type"))
        if part == "teacher":
            yield Finding(here, "a teacher never learns", "Take it out of `train:`.")
        elif part not in known:
            yield Finding(
                here, f"the model has no part {part!r}", advise(part, known, "parts"), involved
            )
        elif part == "patch_alignment" and getattr(stage, "task", "") == "language":
            yield Finding(
                here,
                "the task `language` has no loss that reaches this part",
                "Write `task: alignment`, or take the part out of `train:`.",
                ((*path, "task"),),
            )


_ALIGNMENT = {
    ("model", "patch_alignment"): "{width: 128, heads: 8, every: 2}",
    ("model", "teacher"): "{type: clip, from: hf:openai/clip-vit-base-patch32}",
    ("loss", "alignment"): "{weight: 1.0}",
}
"""What the alignment loss rests on, with an example of each."""


def _alignment_parts(experiment: VisionLanguageExperiment) -> Mapping[tuple[str, str], bool]:
    """Whether each of them is there."""
    return {
        ("model", "patch_alignment"): experiment.model.patch_alignment is not None,
        ("model", "teacher"): experiment.model.teacher is not None,
        ("loss", "alignment"): experiment.loss.alignment is not None,
    }


def _alignment_has(
    path: Path, stage: LanguageStage, experiment: VisionLanguageExperiment
) -> Iterator[Finding]:
    """A stage that aligns has something to align with."""
    if stage.task != "alignment":
        return
    for (block, key), present in _alignment_parts(experiment).items():
        if not present:
            yield Finding(
                (*path, "task"),
                f"aligning needs {block}.{key}, which is missing",
                f"Add `{key}: {_ALIGNMENT[block, key]}` to `{block}:`, or write `task: language`.",
                ((block, key),),
            )


def _alignment_used(
    experiment: VisionLanguageExperiment, names: tuple[str, ...]
) -> Iterator[Finding]:
    """What only aligning needs is not there for nothing."""
    if any(stage.task == "alignment" for stage in experiment.stages.values()):
        return
    for (block, key), present in _alignment_parts(experiment).items():
        if present:
            yield Finding(
                (block, key),
                "no stage uses this",
                f"Give a stage `task: alignment`, or take it out: `{key}: null`.",
                tuple(("stages", name, "task") for name in names) or (("stages",),),
            )


def _text(model: EncoderFree) -> Iterator[Finding]:
    """Exactly one text tokenizer."""
    pretrained = model.language_model.type == "pretrained"
    if model.text is None and not pretrained:
        yield Finding(
            ("model", "text"),
            "a decoder with random weights has no text tokenizer of its own",
            "Add `text: {type: trained, vocabulary: 400}` to `model:`, or `text: {type: bytes}`.",
            (("model", "language_model"),),
        )
    if model.text is not None and pretrained:
        yield Finding(
            ("model", "text"),
            "a pretrained decoder reads the tokens it was trained with",
            "Take `text` out.",
            (("model", "language_model"),),
        )


def _layers(model: EncoderFree) -> Iterator[Finding]:
    """The alignment reads the last layer and at least one before it."""
    decoder, alignment = model.language_model, model.patch_alignment
    if decoder.type == "llama" and alignment is not None and alignment.every > decoder.depth:
        yield Finding(
            ("model", "patch_alignment", "every"),
            f"every {alignment.every} layers of {decoder.depth} is the last one only",
            f"Choose from 1 to {decoder.depth}.",
            (("model", "language_model"),),
        )


def _sizes(experiment: Experiment) -> Iterator[Finding]:
    """Pictures are cut into whole cells."""
    model = experiment.model
    key, pixels = _limit(model.images.size)
    if key:
        path: Path = ("model", "images", "size")
        yield from _whole_cells((*path, key), pixels, model)
        multiple = getattr(model.images.size, "multiple", None)
        if multiple is not None:
            yield from _whole_cells((*path, "multiple"), multiple, model)
        return
    for name, dataset in experiment.datasets.items():
        if isinstance(dataset, Scenes):
            path = ("datasets", name, "cell")
            for finding in _whole_cells(path, dataset.cell, model):
                yield replace(finding, involved=(*finding.involved, ("model", "images", "size")))


def _limit(size: Size) -> tuple[str, int]:
    """The key that sets the size of pictures, and its pixels; empty if they keep their own."""
    match size.type:
        case "longest_edge" | "square":
            return "edge", size.edge
        case "area":
            return "max_side", size.max_side
    return "", 0


def _whole_cells(path: Path, pixels: int, model: Model) -> Iterator[Finding]:
    if pixels % model.cell == 0:
        return
    below = pixels // model.cell * model.cell
    near = " or ".join(str(side) for side in (below, below + model.cell) if side)
    what = "patch x pool" if isinstance(model, EncoderFree) else "the encoder's stride"
    origin = "patch_embedding" if isinstance(model, EncoderFree) else "encoder"
    yield Finding(
        path,
        f"{pixels} px cannot be cut into cells of {model.cell} px ({what})",
        f"Choose {near}, or change model.{origin}.",
        (("model", origin),),
    )


def _largest(experiment: VisionLanguageExperiment, stage: Stage) -> tuple[int, int]:
    """Visual tokens of the largest picture of a stage, as far as is known, and its side."""
    model = experiment.model
    key, side = _limit(model.images.size)
    if not key:
        used = (experiment.datasets.get(entry.partition(".")[0]) for entry in stage.data)
        side = max((data.sides[1] for data in used if isinstance(data, Scenes)), default=0)
    rows = -(-side // model.cell)
    return (num_tokens(model.patch_embedding, rows, rows) if side else 0), side


def _rows(
    path: Path, stage: LanguageStage, experiment: VisionLanguageExperiment
) -> Iterator[Finding]:
    """The largest picture leaves room for words."""
    tokens, side = _largest(experiment, stage)
    involved: tuple[Path, ...] = (
        ("model", "patch_embedding"),
        ("model", "images"),
        *(("datasets", entry.partition(".")[0], "sides") for entry in stage.data),
        (*path, "data"),
    )
    if tokens >= stage.tokens_per_row:
        yield Finding(
            (*path, "tokens_per_row"),
            f"a picture of {side} x {side} px is {tokens} tokens: a row of {stage.tokens_per_row} "
            "has no room for its text",
            f"Choose at least {2 * tokens}, or smaller pictures, or larger cells.",
            involved,
        )
    decoder = experiment.model.language_model
    if decoder.type == "llama" and tokens >= decoder.max_positions:
        yield Finding(
            ("model", "language_model", "max_positions"),
            f"a picture of {side} x {side} px is {tokens} tokens: {decoder.max_positions} "
            "positions leave no room for its text",
            f"Choose at least {2 * tokens}.",
            involved,
        )
