"""What has to fit between pictures, the cells they are cut into, and rows of tokens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from lit_eve.schema.base import Finding, Path
from lit_eve.schema.datasets import Scenes
from lit_eve.schema.experiment import Experiment, VisionLanguageExperiment
from lit_eve.schema.foundations import Contrastive, TextModel
from lit_eve.schema.images import SizeOrCrop
from lit_eve.schema.models import EncoderFree, EncoderModel
from lit_eve.schema.tokenizers import ImageTokenizer
from lit_eve.schema.training import LanguageStage


def whole_cells(experiment: Experiment) -> Iterator[Finding]:
    """Pictures are cut into whole cells."""
    model = experiment.model
    if isinstance(model, TextModel):
        return
    places: dict[Path, SizeOrCrop] = {("model", "images", "size"): model.images.size}
    for name, stage in experiment.trained.items():
        own = getattr(stage, "size", None)
        if own is not None:
            places["stages", name, "size"] = own
    for path, size in places.items():
        for key in ("edge", "max_side", "multiple"):
            if getattr(size, key, None) is not None:
                yield from _whole_cells((*path, key), getattr(size, key), model)
    if _limit(model.images.size):
        return
    for name, dataset in experiment.datasets.items():
        if isinstance(dataset, Scenes):
            path = ("datasets", name, "cell")
            for finding in _whole_cells(path, dataset.cell, model):
                yield replace(finding, involved=(*finding.involved, ("model", "images", "size")))


def _limit(size: SizeOrCrop) -> int:
    """Pixels of the side that a policy sets; 0 if pictures keep their own."""
    match size.type:
        case "longest_edge" | "square" | "crop":
            return size.edge
        case "area":
            return size.max_side
    return 0


_CELLS = {
    "encoder_free": ("patch_embedding", "patch x pool"),
    "encoder": ("vision_encoder", "the encoder's patch"),
    "tokenizer": ("encoder", "the encoder's stride"),
    "contrastive": ("type", "in which pictures travel"),
}
"""By type of model: what makes its cells, and in words."""


def _whole_cells(
    path: Path, pixels: int, model: EncoderFree | EncoderModel | ImageTokenizer | Contrastive
) -> Iterator[Finding]:
    if pixels % model.cell == 0:
        return
    below = pixels // model.cell * model.cell
    near = " or ".join(str(side) for side in (below, below + model.cell) if side)
    origin, what = _CELLS[model.type]
    yield Finding(
        path,
        f"{pixels} px cannot be cut into cells of {model.cell} px ({what})",
        f"Choose {near}, or change model.{origin}.",
        (("model", origin),),
    )


def _largest(experiment: VisionLanguageExperiment, stage: LanguageStage) -> tuple[int, int]:
    """Visual tokens of the largest picture of a stage, as far as is known, and its side."""
    model = experiment.model
    side = _limit(stage.size or model.images.size)
    if not side:
        used = (experiment.datasets.get(entry.partition(".")[0]) for entry in stage.data)
        side = max((data.sides[1] for data in used if isinstance(data, Scenes)), default=0)
    rows = -(-side // model.cell)
    return (model.visual_tokens(rows, rows) if side else 0), side


def room_in_rows(
    path: Path, stage: LanguageStage, experiment: VisionLanguageExperiment
) -> Iterator[Finding]:
    """The largest picture leaves room for words."""
    tokens, side = _largest(experiment, stage)
    involved: tuple[Path, ...] = (
        ("model", "patch_embedding"),
        ("model", "vision_encoder"),
        ("model", "connector"),
        ("model", "images"),
        (*path, "size"),
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
