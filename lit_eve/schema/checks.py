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
from lit_eve.schema.experiment import (
    ContrastiveExperiment,
    Experiment,
    TextExperiment,
    TokenizerExperiment,
    VisionLanguageExperiment,
)
from lit_eve.schema.foundations import TextModel
from lit_eve.schema.models import EncoderFree, EncoderModel, Model, VisionLanguage
from lit_eve.schema.problems import advise, nearest
from lit_eve.schema.running import Hardware
from lit_eve.schema.schedules import Schedule
from lit_eve.schema.size_checks import room_in_rows, whole_cells
from lit_eve.schema.training import LanguageStage, Stage, Transform


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
    for name, any_stage in experiment.stages.items():
        yield from _order(("stages", name), any_stage, draft)
    for name, stage in experiment.trained.items():
        path = ("stages", name)
        yield from _data(path, stage, draft)
        yield from _thaw(path, stage)
        yield from _precision(path, stage, experiment.hardware)
        yield from _parts(path, stage, experiment.model)
    yield from whole_cells(experiment)
    yield from _profiled(experiment)
    if isinstance(experiment, VisionLanguageExperiment):
        yield from _vision_language(experiment, draft.names["stages"])
    if isinstance(experiment, TextExperiment):
        yield from _text(experiment.model)
    if isinstance(experiment, ContrastiveExperiment):
        yield from _no_blocks(experiment, "a CLIP")
    if isinstance(experiment, TokenizerExperiment):
        yield from _no_blocks(experiment, "an image tokenizer")
        yield from _tokenizer(experiment)
        yield from _discriminator_learns(experiment)


def _vision_language(
    experiment: VisionLanguageExperiment, names: tuple[str, ...]
) -> Iterator[Finding]:
    yield from _text(experiment.model)
    if isinstance(experiment.model, EncoderFree):
        yield from _layers(experiment.model)
    else:
        yield from _hooks(experiment.model, experiment.hardware)
    yield from _alignment_used(experiment, names)
    yield from _copies(experiment)
    for name, stage in experiment.trained.items():
        yield from _alignment_has(("stages", name), stage, experiment)
        yield from room_in_rows(("stages", name), stage, experiment)


def _no_blocks(experiment: Experiment, what: str) -> Iterator[Finding]:
    """What works on a decoder's blocks needs a decoder."""
    for key in ("compile", "activation_checkpointing"):
        if getattr(experiment.hardware, key):
            yield Finding(
                ("hardware", key),
                f"{what} has no decoder blocks that this could work on",
                f"Take it out. Where `machine` brings it, write `{key}: false`.",
                (("model", "type"), ("hardware", "machine")),
            )
    if experiment.hardware.micro_batch != "auto":
        yield Finding(
            ("hardware", "micro_batch"),
            f"{what} learns from what the pictures of a batch have in common, so parts of a batch "
            "would train another one",
            "Take it out, and use a smaller `batch`, or more devices.",
            (("model", "type"),),
        )


def _tokenizer(experiment: TokenizerExperiment) -> Iterator[Finding]:
    for name, change in experiment.stages.items():
        if isinstance(change, Transform) and change.do == "copy":
            yield Finding(
                ("stages", name, "do"),
                "an image tokenizer has no weights to copy from one part to another",
                "Write `do: load`, or train.",
                (("model", "type"),),
            )
    for name, stage in experiment.trained.items():
        if stage.budget.unit == "tokens":
            yield Finding(
                ("stages", name, "for"),
                "an image tokenizer reads pictures, not tokens",
                "Count samples, steps or epochs.",
                (("model", "type"),),
            )


def _discriminator_learns(experiment: TokenizerExperiment) -> Iterator[Finding]:
    """A discriminator that never learns tells nothing."""
    stages = experiment.trained.values()
    if experiment.model.discriminator and not any("discriminator" in s.train for s in stages):
        yield Finding(
            ("model", "discriminator"),
            "no stage trains it, so it would judge at random",
            "Add `discriminator: 1e-4` to `train:` of a stage, or take it out.",
            tuple(("stages", name, "train") for name in experiment.stages),
        )


def _profiled(experiment: Experiment) -> Iterator[Finding]:
    """Some stage comes to the steps that are to be traced."""
    lengths = [num_steps(stage) for stage in experiment.trained.values()]
    known = [steps for steps in lengths if steps is not None]
    if experiment.profile is None or len(known) < len(lengths):
        return
    first, _ = experiment.profile.steps
    if known and first >= max(known):
        yield Finding(
            ("profile", "steps"),
            f"no stage has a step {first}: the longest ends after {max(known)}",
            "Choose earlier ones.",
            tuple(("stages", name, "for") for name in experiment.trained),
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


def _order(path: Path, stage: Stage | Transform, draft: Draft) -> Iterator[Finding]:
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
    own = experiment.trained.get(str(path[1])) if path[0] == "stages" else None
    stages = [own] if own else list(experiment.trained.values())
    known = [steps for stage in stages if (steps := num_steps(stage)) is not None]
    if not known or len(known) < len(stages) or schedule.over.amount <= max(known):
        return
    yield Finding(
        (*path, "over"),
        f"a way of {schedule.over.amount} steps never ends in a training of {max(known)}",
        "Give a share of the stage instead: `over: 100%`.",
        tuple(
            ("stages", name, key)
            for name in (path[1:2] if own else experiment.trained)
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
    model = experiment.model
    return {
        ("model", "patch_alignment"): getattr(model, "patch_alignment", None) is not None,
        ("model", "teacher"): getattr(model, "teacher", None) is not None,
        ("loss", "alignment"): experiment.loss.alignment is not None,
    }


def _alignment_has(
    path: Path, stage: LanguageStage, experiment: VisionLanguageExperiment
) -> Iterator[Finding]:
    """A stage that aligns has something to align with."""
    if stage.task != "alignment":
        return
    if isinstance(experiment.model, EncoderModel):
        yield Finding(
            (*path, "task"),
            "a model with a vision encoder has no patches to align with another one",
            "Write `task: language`.",
            (("model", "type"),),
        )
        return
    for (block, key), present in _alignment_parts(experiment).items():
        if not present:
            yield Finding(
                (*path, "task"),
                f"aligning needs {block}.{key}, which is missing",
                f"Add `{key}: {_ALIGNMENT[block, key]}` to `{block}:`, or write `task: language`.",
                ((block, key),),
            )


def _copies(experiment: VisionLanguageExperiment) -> Iterator[Finding]:
    """What is copied exists."""
    divided = experiment.model.language_model.divide is not None
    for name, stage in experiment.stages.items():
        if isinstance(stage, Transform) and stage.do == "copy" and not divided:
            yield Finding(
                ("stages", name, "do"),
                "visual tokens have no weights of their own that could be copied to",
                "Add `divide: full` to model.language_model, or take the stage out.",
                (("model", "language_model"),),
            )


def _alignment_used(
    experiment: VisionLanguageExperiment, names: tuple[str, ...]
) -> Iterator[Finding]:
    """What only aligning needs is not there for nothing."""
    stages = experiment.trained.values()
    if not stages or any(stage.task == "alignment" for stage in stages):
        return
    for (block, key), present in _alignment_parts(experiment).items():
        if present:
            yield Finding(
                (block, key),
                "no stage uses this",
                f"Give a stage `task: alignment`, or take it out: `{key}: null`.",
                tuple(("stages", name, "task") for name in names) or (("stages",),),
            )


def _text(model: VisionLanguage | TextModel) -> Iterator[Finding]:
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


def _hooks(model: EncoderModel, hardware: Hardware) -> Iterator[Finding]:
    """Layers that look at the image stand in front of the decoder's, which are then left alone."""
    if model.fusion.type == "cross_attention" and hardware.activation_checkpointing:
        yield Finding(
            ("hardware", "activation_checkpointing"),
            "computing the decoder's layers again would leave out what they look at",
            "Take it out, or write `fusion: {type: splice}`.",
            (("model", "fusion"),),
        )
