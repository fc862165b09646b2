"""What has to fit between the parts of an experiment, each mistake with its way out.

What a block can tell by itself is in its own `findings`. Every check here looks only at parts in
which nothing is wrong, so a typo in one place does not hide, or cause, a message in another.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from lit_eve.schema.addresses import ENVIRONMENT, Address
from lit_eve.schema.base import Finding, Path
from lit_eve.schema.datasets import Scenes
from lit_eve.schema.drafts import Draft
from lit_eve.schema.images import Size
from lit_eve.schema.models import EncoderFree, Model
from lit_eve.schema.patch_embeddings import num_tokens
from lit_eve.schema.problems import advise, nearest
from lit_eve.schema.running import Hardware
from lit_eve.schema.schedules import Schedule
from lit_eve.schema.training import LanguageStage, Stage


def check(draft: Draft) -> Iterator[Finding]:
    """Everything that does not fit, among what is right by itself."""
    yield from _environment((), draft.fields)
    for path, block in draft.blocks():
        for finding in block.findings():
            involved = tuple((*path, *other) for other in finding.involved)
            yield replace(finding, path=(*path, *finding.path), involved=involved)
        yield from _environment(path, block.__dict__)
        if isinstance(block, Schedule):
            yield from _schedule_fits(path, block, draft)
    for name, stage in draft.stages.items():
        path = ("stages", name)
        yield from _data(path, stage, draft)
        yield from _order(path, stage, draft)
        yield from _thaw(path, stage)
        yield from _precision(path, stage, draft)
    if draft.model is not None:
        yield from _with_model(draft.model, draft)


def _with_model(model: Model, draft: Draft) -> Iterator[Finding]:
    yield from _sizes(model, draft)
    yield from _decoder_switches(model, draft)
    for name, stage in draft.stages.items():
        path = ("stages", name)
        yield from _parts(path, stage, model)
        if isinstance(model, EncoderFree) and isinstance(stage, LanguageStage):
            yield from _alignment_has(path, stage, model, draft)
            yield from _rows(path, stage, model, draft)
        elif stage.budget.unit == "tokens":
            yield Finding(
                (*path, "for"),
                "an image tokenizer reads pictures, not tokens",
                "Count samples, steps or epochs.",
            )
    if isinstance(model, EncoderFree):
        yield from _text(model)
        yield from _alignment_used(model, draft)


def _environment(path: Path, block: Mapping[str, Any]) -> Iterator[Finding]:
    """A reference that nobody would resolve."""
    for key, value in block.items():
        if isinstance(value, str) and not isinstance(value, Address) and ENVIRONMENT.search(value):
            yield Finding(
                (*path, key),
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
                (("datasets", near),) if (near := nearest(name, known)) else (),
            )
            continue
        dataset = draft.datasets.get(name)
        if subset and isinstance(dataset, Scenes) and subset not in dataset.subsets:
            yield Finding(
                here,
                f"{name} has no subset {subset!r}",
                advise(subset, dataset.subsets, "subsets"),
                (("datasets", name, "kinds"),),
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
    yield Finding(here, message, advise(stage.previous, earlier, "stages before this one"))


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


def _schedule_fits(path: Path, schedule: Schedule, draft: Draft) -> Iterator[Finding]:
    """A schedule in steps arrives before the training ends."""
    if schedule.over.unit != "steps":
        return
    own = draft.stages.get(str(path[1])) if path[0] == "stages" else None
    stages = [own] if own else list(draft.stages.values())
    known = [steps for stage in stages if (steps := num_steps(stage)) is not None]
    if not known or len(known) < len(stages) or schedule.over.amount <= max(known):
        return
    yield Finding(
        (*path, "over"),
        f"a way of {schedule.over.amount} steps never ends in a training of {max(known)}",
        "Give a share of the stage instead: `over: 100%`.",
        (("stages",),),
    )


def _precision(path: Path, stage: Stage, draft: Draft) -> Iterator[Finding]:
    hardware = draft.fields.get("hardware")
    on_cpu = isinstance(hardware, Hardware) and hardware.accelerator == "cpu"
    if on_cpu and stage.precision == "fp16":
        yield Finding(
            (*path, "precision"),
            "a CPU cannot train in fp16",
            "Write float32 or bf16.",
            (("hardware", "accelerator"),),
        )


def _decoder_switches(model: Model, draft: Draft) -> Iterator[Finding]:
    """What is done to a decoder is done only where there is one."""
    hardware = draft.fields.get("hardware")
    for key in ("compile", "activation_checkpointing"):
        if not isinstance(model, EncoderFree) and getattr(hardware, key, False):
            yield Finding(
                ("hardware", key),
                "an image tokenizer has no decoder blocks that this could work on",
                "Take it out.",
            )


def _parts(path: Path, stage: Stage, model: Model) -> Iterator[Finding]:
    """What is to learn is a part of the model, and the task's loss reaches it."""
    missing = [part for part in model.parts if getattr(model, part, part) is None]
    known = [part for part in model.parts if part not in missing]
    for name in stage.train:
        here, part = (*path, "train", name), name.partition(".")[0]
        involved = (("model",),) if part in missing else ()
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


def _alignment_parts(model: EncoderFree, draft: Draft) -> Mapping[tuple[str, str], bool]:
    loss = draft.fields.get("loss")
    found = {
        ("model", "patch_alignment"): model.patch_alignment is not None,
        ("model", "teacher"): model.teacher is not None,
    }
    if loss is not None:
        found["loss", "alignment"] = loss.alignment is not None
    return found


def _alignment_has(
    path: Path, stage: LanguageStage, model: EncoderFree, draft: Draft
) -> Iterator[Finding]:
    """A stage that aligns has something to align with."""
    if stage.task != "alignment":
        return
    for (block, key), present in _alignment_parts(model, draft).items():
        if not present:
            yield Finding(
                (*path, "task"),
                f"aligning needs {block}.{key}, which is missing",
                f"Add `{key}: {_ALIGNMENT[block, key]}` to `{block}:`, or write `task: language`.",
                ((block, key),),
            )


def _alignment_used(model: EncoderFree, draft: Draft) -> Iterator[Finding]:
    """What only aligning needs is not there for nothing."""
    stages = [stage for stage in draft.stages.values() if isinstance(stage, LanguageStage)]
    if len(stages) < len(draft.names["stages"]):
        return
    if any(stage.task == "alignment" for stage in stages):
        return
    for (block, key), present in _alignment_parts(model, draft).items():
        if present:
            yield Finding(
                (block, key),
                "no stage uses this",
                f"Give a stage `task: alignment`, or take it out: `{key}: null`.",
                (("stages",),),
            )


def _text(model: EncoderFree) -> Iterator[Finding]:
    """Exactly one text tokenizer."""
    pretrained = model.language_model.type == "pretrained"
    if model.text is None and not pretrained:
        yield Finding(
            ("model", "text"),
            "a decoder with random weights has no text tokenizer of its own",
            "Add `text: {type: trained, vocabulary: 400}` to `model:`, or `text: {type: bytes}`.",
        )
    if model.text is not None and pretrained:
        yield Finding(
            ("model", "text"),
            "a pretrained decoder reads the tokens it was trained with",
            "Take `text` out.",
            (("model", "language_model"),),
        )


def _sizes(model: Model, draft: Draft) -> Iterator[Finding]:
    """Pictures are cut into whole cells."""
    key, pixels = _limit(model.images.size)
    if key:
        yield from _whole_cells(("model", "images", "size", key), pixels, model)
        return
    for name, dataset in draft.datasets.items():
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


def _largest(model: EncoderFree, stage: Stage, draft: Draft) -> tuple[int, int]:
    """Visual tokens of the largest picture of a stage, as far as is known, and its side."""
    key, side = _limit(model.images.size)
    if not key:
        used = (draft.datasets.get(entry.partition(".")[0]) for entry in stage.data)
        side = max((data.sides[1] for data in used if isinstance(data, Scenes)), default=0)
    rows = -(-side // model.cell)
    return (num_tokens(model.patch_embedding, rows, rows) if side else 0), side


def _rows(path: Path, stage: LanguageStage, model: EncoderFree, draft: Draft) -> Iterator[Finding]:
    """The largest picture leaves room for words."""
    tokens, side = _largest(model, stage, draft)
    involved: tuple[Path, ...] = (("model",), ("datasets",))
    if tokens >= stage.tokens_per_row:
        yield Finding(
            (*path, "tokens_per_row"),
            f"a picture of {side} x {side} px is {tokens} tokens: a row of {stage.tokens_per_row} "
            "has no room for its text",
            f"Choose at least {2 * tokens}, or smaller pictures, or larger cells.",
            involved,
        )
    decoder = model.language_model
    if decoder.type == "llama" and tokens >= decoder.max_positions:
        yield Finding(
            ("model", "language_model", "max_positions"),
            f"a picture of {side} x {side} px is {tokens} tokens: {decoder.max_positions} "
            "positions leave no room for its text",
            f"Choose at least {2 * tokens}.",
            involved,
        )
