"""Any experiment, small enough for a CPU and a minute: `--tiny`.

The same file shrunk, not another one: every stage, part, loss and type stays, so what breaks here
would have broken there. What would have to be downloaded is replaced by something built in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lit_eve.schema.checks import num_steps
from lit_eve.schema.datasets import SCENE_KINDS, Scenes
from lit_eve.schema.experiment import Experiment
from lit_eve.schema.units import Span

STEPS = 6
"""Optimizer steps of a stage."""
BATCH = 8
WIDTH = 32
HEADS = 4
DEPTH = 2
CODES = 64
TRIALS = 3
"""Trials of a search."""
LARGEST_CELL = 32

Plain = dict[str, Any]


def shrink(experiment: Experiment) -> Plain:
    """The experiment as plain keys and values, small; a pure function, and its own fixed point."""
    plain: Plain = experiment.model_dump(by_alias=True)
    longest = max((num_steps(stage) or 0 for stage in experiment.trained.values()), default=0)
    for name, stage in experiment.trained.items():
        plain["stages"][name] = _scheduled(plain["stages"][name], num_steps(stage) or 0)
    plain = _scheduled(plain, longest)
    plain["name"] = experiment.name.removesuffix("-tiny") + "-tiny"
    model = plain["model"]
    cell, sides = _MODELS[model["type"]](model)
    plain["datasets"] = {
        name: _scenes(dataset, cell, sides) for name, dataset in experiment.datasets.items()
    }
    for name in experiment.trained:
        stage = plain["stages"][name]
        _stage(stage, plain["datasets"])
        if "size" in stage:
            stage["size"] = _size(stage["size"], cell)
    _without_loads(plain["stages"])
    _surroundings(plain)
    if "search" in plain:
        _search(plain["search"])
    return plain


def _scheduled(value: Any, steps: int) -> Any:
    """The same with every span in steps as the share it is of a stage of `steps`."""
    if not isinstance(value, dict):
        return value
    return {
        key: _share(Span.parse(item), steps)
        if key in ("over", "warmup") and isinstance(item, str)
        else _scheduled(item, steps)
        for key, item in value.items()
    }


def _share(span: Span, steps: int) -> str:
    if span.unit == "share":
        return str(span)
    share = min(1.0, span.amount / steps) if steps else 1.0
    return f"{100 * share:.3g}%"


Sides = tuple[int, int]
"""Smallest and largest side of a canvas."""


def _encoder_free(model: Plain) -> tuple[int, Sides]:
    """Shrink a vision-language model in place; gives cell and sides of the canvases it needs."""
    embedding = model["patch_embedding"]
    pool = min(embedding.get("pool", 1), 4)
    if embedding["patch"] * pool > LARGEST_CELL:
        embedding["patch"] = LARGEST_CELL // 2 // pool
    cell = int(embedding["patch"] * pool)
    smaller = {"pool": pool, "width": WIDTH, "heads": HEADS}
    embedding |= {key: value for key, value in smaller.items() if key in embedding}
    model["language_model"] = _decoder(model["language_model"])
    model["text"] = {"type": "bytes"}
    model["images"]["size"] = _size(model["images"]["size"], cell)
    if "patch_alignment" in model:
        every = min(model["patch_alignment"]["every"], DEPTH)
        model["patch_alignment"] = {"width": WIDTH, "heads": HEADS, "every": every}
    if "teacher" in model:
        model["teacher"] = {
            "type": "random",
            "width": WIDTH,
            "depth": DEPTH,
            "heads": HEADS,
            "patch": 8,
            "image": 32,
        }
    return cell, _sides(cell)


def _encoder(model: Plain) -> tuple[int, Sides]:
    """Shrink a baseline in place; gives cell and sides of the canvases it needs."""
    seen, connector = model["vision_encoder"], model["connector"]
    small: Plain = {"width": WIDTH, "depth": DEPTH, "heads": HEADS, "patch": 8, "image": 32}
    if "prompts" in seen:
        layers = list(dict.fromkeys(0 if layer == 0 else -1 for layer in seen["layers"]))
        small |= {"type": "florence2", "layers": layers, "prompts": seen["prompts"]}
    else:
        layers = [-1 - n for n in range(min(len(seen["layers"]), DEPTH))]
        small |= {"type": "vit", "layers": layers}
    model["vision_encoder"] = small
    limits = {"side": 2, "queries": 4, "width": WIDTH, "depth": DEPTH, "heads": HEADS, "every": 1}
    for block in (connector, model["fusion"]):
        block |= {key: min(block[key], limit) for key, limit in limits.items() if key in block}
    model["language_model"] = _decoder(model["language_model"])
    model["text"] = {"type": "bytes"}
    model["images"]["size"] = _size(model["images"]["size"], 8)
    return 8, _sides(8)


def _decoder(decoder: Plain) -> Plain:
    """A small decoder in place of any."""
    small = {
        "type": "llama",
        "width": 2 * WIDTH,
        "depth": DEPTH,
        "heads": HEADS,
        "tie_embeddings": decoder.get("tie_embeddings", True),
    }
    return small | ({"divide": decoder["divide"]} if "divide" in decoder else {})


def _tokenizer(model: Plain) -> tuple[int, Sides]:
    """Shrink an image tokenizer in place; gives cell and sides of the canvases it needs.

    Batches are of one size, so few scenes have few sizes: two for either side.
    """
    encoder = model["encoder"]
    encoder |= {"width": min(encoder["width"], WIDTH // 2), "blocks": 1}
    cell = 8
    if encoder["type"] == "convolutional":
        levels = min(3, len(encoder["multipliers"]))
        encoder["multipliers"] = [min(factor, 2) for factor in encoder["multipliers"][:levels]]
        encoder["attention"] = sorted({min(level, levels - 1) for level in encoder["attention"]})
        cell = 2 ** (levels - 1)
    _quantizer(model["quantizer"])
    model.pop("perceptual", None)  # it needs the weights of a network trained on ImageNet
    if "discriminator" in model:
        model["discriminator"] |= {"width": CODES // 4, "layers": 1, "starts": 0}
    model["images"]["size"] = _size(model["images"]["size"], cell)
    largest = _sides(cell)[1]
    half = max(cell, largest // 2)
    return half, (max(16, half), largest)


def _text_model(model: Plain) -> tuple[int, Sides]:
    """Shrink a language model in place; gives cell and sides of canvases that it never sees."""
    model["language_model"] = _decoder(model["language_model"])
    model["text"] = {"type": "bytes"}
    model.pop("to", None)  # that folder is for the trained one
    return 16, _sides(16)


def _contrastive(model: Plain) -> tuple[int, Sides]:
    """Shrink a CLIP in place; gives cell and sides of the canvases it needs."""
    half = {"width": WIDTH, "depth": DEPTH, "heads": HEADS}
    model["picture"] = {**half, "patch": 8, "side": 32}
    model["caption"] = {**half, "longest": model["caption"]["longest"]}
    model["width"] = WIDTH
    model["text"] = {"type": "bytes"}
    model["images"]["size"] = _size(model["images"]["size"], 16)
    model.pop("to", None)
    return 16, _sides(16)


_MODELS: Mapping[str, Callable[[Plain], tuple[int, Sides]]] = {
    "encoder_free": _encoder_free,
    "encoder": _encoder,
    "tokenizer": _tokenizer,
    "language_model": _text_model,
    "contrastive": _contrastive,
}
"""Shrinks a model of a type in place; gives cell and sides of the canvases it needs."""


def _quantizer(quantizer: Plain) -> None:
    limits = {"codes": CODES, "bits": 6, "width": WIDTH, "depth": 2, "refiners": 2}
    for key, limit in limits.items():
        if key in quantizer:
            quantizer[key] = min(quantizer[key], limit)
    if "quantizer" in quantizer:
        _quantizer(quantizer["quantizer"])


def _size(size: Plain, cell: int) -> Plain:
    """The same policy for small pictures."""
    smaller = {"edge": _sides(cell)[1], "max_side": _sides(cell)[1], "multiple": cell}
    return {key: smaller.get(key, value) for key, value in size.items()}


def _sides(cell: int) -> Sides:
    """Of whole cells, few of them, with room for a digit."""
    low = -(-16 // cell) * cell
    return low, max(low, min(64, 8 * cell) // cell * cell)


def _scenes(dataset: object, cell: int, sides: Sides) -> Plain:
    """A few scenes in place of any dataset."""
    kinds: Mapping[str, float] = dict.fromkeys(SCENE_KINDS, 1.0)
    seed = 0
    if isinstance(dataset, Scenes):
        kinds, seed = dataset.kinds, dataset.seed
    return {
        "type": "scenes",
        "train": 64,
        "val": 16,
        "test": 16,
        "cell": cell,
        "sides": list(sides),
        "digits": [1, 2],
        "kinds": dict(kinds),
        "seed": seed,
    }


def _without_loads(stages: Plain) -> None:
    """Weights from elsewhere do not fit a small model: training starts without them."""
    loads = {name for name, stage in stages.items() if stage.get("do") == "load"}
    if len(loads) == len(stages):
        return
    for name in loads:
        del stages[name]
    for stage in stages.values():
        if stage.get("from") in loads:
            del stage["from"]


def _stage(stage: Plain, datasets: Plain) -> None:
    stage["for"] = f"{STEPS} steps"
    stage["batch"] = BATCH
    stage["precision"] = "float32"
    if "tokens_per_row" in stage:
        stage["tokens_per_row"] = 512
    data: dict[str, float] = {}
    for entry, weight in stage["data"].items():
        name, _, subset = entry.partition(".")
        known = Scenes.model_validate(datasets[name]).subsets
        kept = entry if subset in known else name
        data[kept] = data.get(kept, 0.0) + weight
    stage["data"] = data
    stage["train"] = _whole_parts(stage["train"])


def _whole_parts(train: Plain) -> Plain:
    """Parts by their first name, or pattern: what lies deeper may not be in a small model."""
    parts: Plain = {}
    for name, rate in sorted(train.items(), key=lambda item: item[0].count(".")):
        parts.setdefault(name if "*" in name else name.partition(".")[0], rate)
    for rate in parts.values():
        if isinstance(rate, dict) and rate.get("thaw"):
            rate["thaw"] = min(rate["thaw"], STEPS // 3)
    return parts


def _surroundings(plain: Plain) -> None:
    evaluate, tracking = plain["evaluate"], plain["tracking"]
    evaluate["every"] = STEPS
    for key, limit in {"answers": 4, "questions": 4, "images": 4, "samples": 8}.items():
        if key in evaluate:
            evaluate[key] = min(evaluate[key], limit)
    plain["checkpoint"]["every"] = STEPS // 2
    if "profile" in plain:
        plain["profile"]["steps"] = [1, STEPS // 2]
    # Small tensors gain nothing from more threads, and wait for each other where cores are taken.
    plain["hardware"] = {"accelerator": "cpu", "devices": 1, "threads": 1, "workers": 0}
    if not tracking.get("uri", "sqlite:///").startswith("sqlite:///"):
        del tracking["uri"]


def _search(search: Plain) -> None:
    """A few trials; what a grid tries stays."""
    if "trials" in search:
        search["trials"] = min(search["trials"], max(TRIALS, len(search.get("first", ()))))
    for key in ("then", "prune", "storage"):  # the best of so few would be luck
        search.pop(key, None)
