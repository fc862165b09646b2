"""What becomes of a teacher that is trained with its student: do its features collapse?

    uv run python -m benchmarks.teacher_collapse --seeds 3

A small decoder, its patch embedding and its patch alignment learn, by cosine alone, what a vision
transformer sees in scenes of handwriting, once with that transformer frozen and once with it
learning too. Reported of the teacher's features, each of length 1: how far they spread over the
cells of a batch (0: all alike; 1: no direction in common), and how many directions they take
(the exponential of the entropy of their spectrum).

Claim: Diao et al. 2024, arXiv:2406.11832, section 4.3: a teacher that learns collapses.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import ViTConfig

from lit_eve.models.encoder_free import EncoderFreeVLM
from lit_eve.models.language_model import LanguageModel
from lit_eve.models.patch_alignment import PatchAlignment
from lit_eve.models.patch_embedding import EvePatchEmbedding
from lit_eve.models.resampling import cell_places, fitted_grids
from lit_eve.models.teacher import Normalisation, Teacher
from lit_eve_data.batches import PackedBatch
from lit_eve_data.builtin.scenes import ScenesOptions, compose, scene_random
from lit_eve_data.encoding.images import ImageCutter, Native
from lit_eve_data.encoding.text import Encoded
from lit_eve_data.packing.rows import Item, collate

WIDTH, DEPTH, SIDE, PATCH = 64, 2, 64, 16
MEAN, STD = (0.75, 0.75, 0.75), (0.3, 0.3, 0.3)
GIVEN = Normalisation(MEAN, STD)
SCENES = ScenesOptions(sides=(32, 64), digits=(1, 3), glyphs=(14, 16, 20, 24))


def student_and_teacher(seed: int) -> tuple[EncoderFreeVLM, Teacher]:
    torch.manual_seed(seed)
    decoder = LanguageModel.llama(16, WIDTH, DEPTH, 4, max_positions=64)
    embedding = EvePatchEmbedding(8, 2, WIDTH, WIDTH, heads=4)
    alignment = PatchAlignment(WIDTH, DEPTH, WIDTH, WIDTH, heads=4, every=1)
    config = ViTConfig(
        hidden_size=WIDTH,
        num_hidden_layers=DEPTH,
        num_attention_heads=4,
        intermediate_size=4 * WIDTH,
        image_size=SIDE,
        patch_size=PATCH,
    )
    teacher = Teacher.random(config, -1, embedding.layout, GIVEN, seed)
    return EncoderFreeVLM(decoder, embedding, alignment), teacher


def scenes(cutter: ImageCutter, split: Any, start: int, number: int) -> PackedBatch:
    """Pictures alone, one to a row."""
    rows = []
    for index in range(start, start + number):
        pixels = compose(SCENES, split, scene_random(SCENES, split, index)).pixels
        tokens = cutter.num_tokens(*pixels.shape[:2])
        rows.append([Item(Encoded([0] * tokens, [], [(0, tokens)]), [pixels], "picture")])
    return collate(rows, 24, 0, cutter)


def seen(teacher: Teacher, batch: PackedBatch) -> tuple[Tensor, tuple[tuple[int, int], ...]]:
    """As the teacher's own call, with gradients."""
    cells = SIDE // PATCH
    grids = fitted_grids(batch.images.grids, cells)
    pixels = teacher._see(batch.images, grids)
    states = teacher.model(pixel_values=pixels, output_hidden_states=True).hidden_states
    square = states[teacher.layer][:, -(cells**2) :].flatten(0, 1)
    return square.index_select(0, cell_places(grids, (cells, cells), centred=True)), grids


def spread(features: Tensor) -> tuple[float, float]:
    """How far features of length 1 spread, and how many directions they take."""
    unit = F.normalize(features.detach().double(), dim=1)
    centred = unit - unit.mean(0)
    values = torch.linalg.svdvals(centred) ** 2
    share = values / values.sum().clamp(min=1e-30)
    entropy = -(share * share.clamp(min=1e-30).log()).sum()
    return float(centred.norm(dim=1).pow(2).mean()), float(entropy.exp())


def learn(seed: int, trained: bool, steps: int) -> dict[str, float]:
    """Loss, spread and directions on held-out scenes after `steps` steps."""
    model, teacher = student_and_teacher(seed)
    alignment = model.patch_alignment
    assert alignment is not None
    teacher.model.requires_grad_(trained)
    parameters = [*model.parameters(), *(teacher.model.parameters() if trained else ())]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.0)
    cutter = ImageCutter(model.layout, Native(), MEAN, STD)

    def loss(batch: PackedBatch) -> tuple[Tensor, Tensor]:
        target, grids = seen(teacher, batch)
        states = model(batch, layers=alignment.layers).layer_states
        student = alignment(states, batch, grids)
        return 1 - F.cosine_similarity(student, target, dim=1).mean(), target

    for step in range(steps):
        optimizer.zero_grad()
        torch.autograd.backward(loss(scenes(cutter, "train", 16 * step, 16))[0])
        optimizer.step()
    with torch.no_grad():
        value, target = loss(scenes(cutter, "test", 0, 64))
    far, directions = spread(target)
    return {"loss": float(value), "spread": far, "directions": directions}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, nargs="+", default=[0, 50, 200])
    parser.add_argument("--picture", type=Path, help="file for a plot")
    options = parser.parse_args()
    print("| teacher | steps | 1 - cos | spread | directions |")
    print("| --- | ---: | ---: | ---: | ---: |")
    spreads: dict[str, list[list[float]]] = {}
    for name, trained in (("frozen", False), ("learning", True)):
        for steps in options.steps:
            told = [learn(seed, trained, steps) for seed in range(options.seeds)]
            spreads.setdefault(name, []).append([one["spread"] for one in told])
            cells = (f"{mean(one[key] for one in told):.4f}" for key in ("loss", "spread"))
            directions = f"{mean(one['directions'] for one in told):.1f}"
            print(f"| {name} | {steps} | {' | '.join(cells)} | {directions} |", flush=True)
    if options.picture is not None:
        plot(options.steps, spreads, options.picture)


def plot(steps: list[int], spreads: dict[str, list[list[float]]], file: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(5, 3))
    for name, values in spreads.items():
        axes.plot(steps, [mean(one) for one in values], label=f"teacher {name}")
        for step, one in zip(steps, values, strict=True):
            axes.plot([step] * len(one), one, "k.", alpha=0.5)
    axes.set_xlabel("steps")
    axes.set_ylabel("spread of the teacher's features")
    axes.legend()
    figure.tight_layout()
    figure.savefig(file, dpi=110)


if __name__ == "__main__":
    main()
