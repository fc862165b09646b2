"""How fast EVE's layers and a whole training step are, against the plain way in the same process.

    uv run python -m benchmarks.eve              everything that runs on a CPU, two threads
    uv run python -m benchmarks.eve pel --tiny   one part, small: does it run at all?

pel:   the patch embedding, forward and backward, against the published algorithm restated (a
       padded canvas, a loop over images, keys and values of every patch projected), both on the
       same weights and checked to agree. Also: operations per batch, and the floor, which is the
       time of its matrix products alone, replayed.
pal:   the patch alignment for two images and for eight.
step:  tokens per second of a training step, rows packed against one padded row a sample; and
       Lightning's step against a bare loop.
gpu:   a 1.3 B decoder at 672 pixels in bfloat16: tokens per second and share of peak arithmetic.
"""

from __future__ import annotations

import argparse
import logging
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import repeat
from statistics import median

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torch.nn import functional as F

from benchmarks.measuring import record, row, timed
from lit_eve.losses.alignment import alignment_loss
from lit_eve.models.attention_pooling import ImageAttention, WindowAttention
from lit_eve.models.encoder_free import EncoderFreeVLM
from lit_eve.models.language_model import LanguageModel
from lit_eve.models.patch_alignment import PatchAlignment
from lit_eve.models.patch_embedding import EvePatchEmbedding
from lit_eve.models.resampling import unpack
from lit_eve.planning.flops import forward_flops, training_flops
from lit_eve.tasks.language import LanguageTask
from lit_eve.tasks.optimizers import AdamWOptions
from lit_eve_data.batches import PackedBatch, PackedImages
from lit_eve_data.encoding.images import ImageCutter, Native
from lit_eve_data.encoding.text import Encoded
from lit_eve_data.packing.fitting import best_fit_decreasing
from lit_eve_data.packing.rows import Item, collate

MIXED = ((4, 3), (3, 4), (3, 2), (2, 3), (16, 9), (9, 16), (1, 1), (2, 1))
H200_BF16 = 989e12
"""Peak floating-point operations per second, dense."""


@dataclass(frozen=True)
class Scale:
    """Sizes of everything; `tiny` only shows that it runs."""

    edge: int = 672
    patch: int = 14
    width: int = 1024
    out_widths: tuple[int, ...] = (1024, 4096)
    images: int = 8
    decoder: tuple[int, int, int] = (256, 4, 4)  # width, depth, heads
    samples: int = 64
    slots: int = 512
    repeats: int = 7
    steps: int = 40


TINY = Scale(56, 4, 16, (16, 32), 3, (32, 2, 2), 8, 128, 2, 6)


# pel -----------------------------------------------------------------------------------------


def published(layer: EvePatchEmbedding, canvas: Tensor, images: PackedImages) -> Tensor:
    """EVE's own algorithm: convolve the whole canvas, then image by image."""
    features = F.conv2d(canvas, layer.patches.weight, stride=layer.layout.patch)  # (I, D, h, w)
    tokens = []
    for feature, (rows, columns) in zip(features, images.grids, strict=True):
        pool = layer.layout.pool
        crop = feature[:, : rows * pool, : columns * pool]
        windows = crop.unfold(1, pool, pool).unfold(2, pool, pool)  # (D, rows, columns, p, p)
        windows = windows.reshape(crop.shape[0], rows * columns, pool * pool).permute(1, 2, 0)
        query = F.avg_pool2d(crop[None], pool)[0].flatten(1).T  # (rows * columns, D)
        local = attended(layer.window_attention, query, windows)  # (rows * columns, D)
        cls = attended(layer.image_attention, layer.class_embedding[None], local[None])
        ends = layer.row_end_embedding.expand(rows, 1, -1)
        grid = torch.cat([local.view(rows, columns, -1), ends], 1).flatten(0, 1)
        tokens.append(layer.project(torch.cat([cls, grid])))
    return torch.cat(tokens)


def attended(layer: WindowAttention | ImageAttention, query: Tensor, keys: Tensor) -> Tensor:
    """Queries (N, D), each over its own keys (N, S, D), all of them projected."""
    num, width = query.shape
    q = layer.query(layer.query_norm(query)).view(num, 1, layer.heads, -1) * layer.scale
    projected = layer.key_value(layer.key_value_norm(keys))  # (N, S, 2 * D)
    k, v = projected.view(*keys.shape[:2], 2, layer.heads, -1).unbind(2)
    attention = (q * k).sum(-1).softmax(1)  # (N, S, H)
    found: Tensor = layer.project((attention[..., None] * v).sum(1).view(num, width))
    return query + found


def random_images(grids: Sequence[tuple[int, int]], layer: EvePatchEmbedding) -> PackedImages:
    cell = layer.layout.cell
    cutter = ImageCutter(layer.layout, Native(), (0.5,) * 3, (0.3,) * 3)
    draw = np.random.default_rng(0)
    sizes = [(rows * cell, columns * cell, 3) for rows, columns in grids]
    return cutter.cut([draw.integers(256, size=size, dtype=np.uint8) for size in sizes])


def mixed(cells: int, images: int) -> list[tuple[int, int]]:
    """Grids of mixed ratios, the longer side `cells`."""
    ratios = (MIXED * images)[:images]
    return [(-(-cells * a // max(a, b)), -(-cells * b // max(a, b))) for a, b in ratios]


def pel(scale: Scale) -> None:
    """The patch embedding against the published algorithm."""
    cells = scale.edge // (2 * scale.patch)
    for out_width in scale.out_widths:
        layer = EvePatchEmbedding(scale.patch, 2, scale.width, out_width, heads=8)
        row(f"patch embedding, out {out_width}", "CPU s", "wall s", "images/s", "ratio CPU", "wall")
        for name, grids in (
            (f"{scale.edge} square", [(cells, cells)] * scale.images),
            (f"{scale.edge} mixed ratios", mixed(cells, scale.images)),
        ):
            _pel_case(layer, name, grids, scale)
        counts = [
            record(_backward(layer, random_images(mixed(cells, n), layer)))
            for n in (2, scale.images)
        ]
        numbers = ", ".join(f"{c.operations} ({c.waits} waits)" for c in counts)
        print(f"operations for 2 and {scale.images} images: {numbers}")


def _backward(layer: EvePatchEmbedding, images: PackedImages) -> Callable[[], None]:
    def run() -> None:
        layer.zero_grad()
        torch.autograd.backward(layer(images).sum())

    return run


def _pel_case(
    layer: EvePatchEmbedding, name: str, grids: list[tuple[int, int]], scale: Scale
) -> None:
    images = random_images(grids, layer)
    canvas = unpack(images, layer.layout)
    canvas = F.pad(canvas, (0, scale.edge - canvas.shape[3], 0, scale.edge - canvas.shape[2]))
    wanted = published(layer, canvas, images)
    torch.testing.assert_close(layer(images), wanted, atol=1e-4, rtol=1e-3)

    def plain() -> None:
        layer.zero_grad()
        torch.autograd.backward(published(layer, canvas, images).sum())

    ours = _backward(layer, images)
    floor = record(ours).replay(canvas.device)
    times = timed({"published": plain, "ours": ours, "floor": floor}, scale.repeats)
    wall, cpu = times["published"]
    for label, (other_wall, other_cpu) in times.items():
        row(
            f"  {name}: {label}",
            f"{other_cpu:.3f}",
            f"{other_wall:.3f}",
            f"{len(grids) / other_wall:.2f}",
            f"{cpu / other_cpu:.2f}x",
            f"{wall / other_wall:.2f}x",
        )


# pal -----------------------------------------------------------------------------------------


def pal(scale: Scale) -> None:
    """The patch alignment: one pass, whatever the number of images."""
    width, depth, _ = scale.decoder
    layer = EvePatchEmbedding(scale.patch, 2, scale.width, width, heads=8)
    align = PatchAlignment(width, depth, width, width, heads=8 if width % 8 == 0 else 1, every=1)
    cells = scale.edge // (2 * scale.patch)
    row("patch alignment, pooled by 2/3", "CPU s", "wall s", "operations", "waits")
    for number in (2, scale.images):
        images = random_images(mixed(cells, number), layer)
        batch = _only_images(images)
        states = {n: torch.randn(1, len(images.visual_source), width) for n in align.layers}
        grids = tuple((max(1, 2 * a // 3), max(1, 2 * b // 3)) for a, b in images.grids)
        target = torch.randn(sum(a * b for a, b in grids), width)

        def run(
            batch: PackedBatch = batch,
            states: dict[int, Tensor] = states,
            grids: tuple[tuple[int, int], ...] = grids,
            target: Tensor = target,
        ) -> None:
            align.zero_grad()
            loss = alignment_loss(align(states, batch, grids), target, grids).mean()
            torch.autograd.backward(loss)

        run()  # gradients exist from now on: every run accumulates alike
        recorded = record(run)
        wall, cpu = timed({"ours": run}, scale.repeats)["ours"]
        operations, waits = str(recorded.operations), str(recorded.waits)
        row(f"  {number} images", f"{cpu:.4f}", f"{wall:.4f}", operations, waits)


def _only_images(images: PackedImages) -> PackedBatch:
    slots = torch.arange(len(images.visual_source))
    none = torch.zeros(1, len(slots), dtype=torch.int64)
    return PackedBatch(none, none, none, none, images, slots, none[:0, :2], (), 1.0, 1.0)


# step ----------------------------------------------------------------------------------------


def questions(scale: Scale, layer: EvePatchEmbedding, largest: int) -> list[Item]:
    """Samples of one image of mixed size and ratio, a question and a supervised answer."""
    draw = np.random.default_rng(0)
    items = []
    for a, b in (MIXED * scale.samples)[: scale.samples]:
        cells = int(draw.integers(2, largest + 1))
        grid = (-(-cells * a // max(a, b)), -(-cells * b // max(a, b)))
        visual, text = layer.layout.num_tokens(*grid), int(draw.integers(8, 24))
        ids = draw.integers(1, 400, size=visual + text).tolist()
        encoded = Encoded(ids, answers=[(len(ids) - 4, len(ids))], images=[(1, 1 + visual)])
        size = tuple(side * layer.layout.cell for side in grid)
        pixels = draw.integers(256, size=(*size, 3), dtype=np.uint8)
        items.append(Item(encoded, [pixels], "question/read"))
    return items


def small_model(scale: Scale) -> tuple[EncoderFreeVLM, ImageCutter]:
    width, depth, heads = scale.decoder
    layer = EvePatchEmbedding(4, 2, min(width, 128), width, heads=4)
    model = EncoderFreeVLM(LanguageModel.llama(400, width, depth, heads), layer)
    return model, ImageCutter(layer.layout, Native(), (0.5,) * 3, (0.3,) * 3)


def step(scale: Scale) -> None:
    """Packed against padded rows; Lightning's step against a bare loop."""
    model, cutter = small_model(scale)
    assert isinstance(model.patch_embedding, EvePatchEmbedding)
    items = questions(scale, model.patch_embedding, largest=8)
    lengths = [len(item.encoded) for item in items]
    packing = best_fit_decreasing(np.array(lengths), scale.slots)
    packed = collate([[items[n] for n in group] for group in packing], scale.slots, 0, cutter)
    padded = collate([[item] for item in items], max(lengths), 0, cutter)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    runs = {
        "padded": partial(bare_step, model, optimizer, padded),
        "packed": partial(bare_step, model, optimizer, packed),
    }
    row("training step", "wall s", "CPU s", "tokens/CPU s", "padding", "ratio, wall", "CPU")
    times = timed(runs, scale.repeats)
    for name, batch in (("padded", padded), ("packed", packed)):
        waste = 1 - sum(lengths) / batch.token_ids.numel()
        wall, cpu = times[name]
        ratios = [
            f"{then / here:.2f}x" for then, here in zip(times["padded"], (wall, cpu), strict=True)
        ]
        rate = f"{sum(lengths) / cpu:.0f}"
        row(f"  {name}", f"{wall:.3f}", f"{cpu:.3f}", rate, f"{waste:.1%}", *ratios)
    overhead(model, packed, scale)


def bare_step(model: EncoderFreeVLM, optimizer: torch.optim.Optimizer, batch: PackedBatch) -> None:
    optimizer.zero_grad()
    torch.autograd.backward(model.next_token_loss(batch).mean())
    optimizer.step()


@dataclass(frozen=True)
class Repeated:
    """A loader that gives the same batch for ever."""

    batch: PackedBatch

    def __iter__(self) -> Iterator[PackedBatch]:
        return repeat(self.batch)


def now() -> tuple[float, float]:
    """Wall and CPU seconds; on a busy machine only the second can be compared."""
    return time.perf_counter(), time.process_time()


class Clock(Callback):
    """When every batch began, in wall and CPU seconds."""

    def __init__(self) -> None:
        self.began: list[tuple[float, float]] = []

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int
    ) -> None:
        self.began.append(now())


def overhead(model: EncoderFreeVLM, batch: PackedBatch, scale: Scale) -> None:
    """Median step of Lightning's loop over that of a bare one, in alternating rounds."""
    bare: list[tuple[float, float]] = []
    lightning: list[tuple[float, float]] = []
    for _ in range(4):
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
        for _ in range(scale.steps // 4 + 2):
            began = now()
            bare_step(model, optimizer, batch)
            ended = now()
            bare.append((ended[0] - began[0], ended[1] - began[1]))
        clock = Clock()
        trainer = Trainer(
            accelerator="cpu",
            max_steps=scale.steps // 4 + 3,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[clock],
        )
        task = LanguageTask(
            model,
            {"patch_embedding": lambda _: 1e-4, "language_model": lambda _: 1e-4},
            AdamWOptions(),
        )
        trainer.fit(task, Repeated(batch))
        lightning += np.diff(np.array(clock.began), axis=0)[1:].tolist()
    row("a step", "wall s", "CPU s", "over bare, wall", "CPU")
    wall, cpu = (median(taken) for taken in zip(*bare, strict=True))
    row("  bare loop", f"{wall:.4f}", f"{cpu:.4f}")
    other_wall, other_cpu = (median(taken) for taken in zip(*lightning, strict=True))
    over = (f"{other_wall / wall - 1:+.1%}", f"{other_cpu / cpu - 1:+.1%}")
    row("  Lightning, same model", f"{other_wall:.4f}", f"{other_cpu:.4f}", *over)


# gpu -----------------------------------------------------------------------------------------


def gpu(scale: Scale) -> None:
    """A 1.3 B decoder at full image size, in bfloat16."""
    if not torch.cuda.is_available():
        print("gpu: no CUDA device here")
        return
    with torch.device("cuda"):
        layer = EvePatchEmbedding(14, 2, 1024, 2048, heads=8)
        model = EncoderFreeVLM(LanguageModel.llama(32_000, 2048, 24, 16), layer).bfloat16()
    layer_scale = replace(scale, samples=8)
    items = questions(layer_scale, layer, largest=24)
    lengths = [len(item.encoded) for item in items]
    cutter = ImageCutter(layer.layout, Native(), (0.5,) * 3, (0.3,) * 3)
    packing = best_fit_decreasing(np.array(lengths), 2048)
    batch = collate([[items[n] for n in group] for group in packing], 2048, 0, cutter).to("cuda")
    batch = replace(batch, images=replace(batch.images, patches=batch.images.patches.bfloat16()))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    order = [n for group in packing for n in group]
    work = sum(
        training_flops(model, forward_flops(model, lengths[n], 4, [grid]))
        for n, grid in zip(order, batch.images.grids, strict=True)
    )
    row("gpu, 1.3 B, bfloat16", "wall s", "tokens/s", "of peak")
    for attention in ("sdpa", "flex_attention"):
        model.language_model.model.set_attn_implementation(attention)

        def run() -> None:
            bare_step(model, optimizer, batch)
            torch.cuda.synchronize()

        wall, _ = timed({attention: run}, scale.repeats)[attention]
        share = work / wall / H200_BF16
        row(f"  {attention}", f"{wall:.3f}", f"{sum(lengths) / wall:.0f}", f"{share:.1%}")


PARTS: dict[str, Callable[[Scale], None]] = {"pel": pel, "pal": pal, "step": step, "gpu": gpu}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="all of them if none")
    parser.add_argument("--tiny", action="store_true", help="small sizes: does it run at all?")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, help="timings of each variant; the median counts")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    print(f"torch {torch.__version__}, {options.threads} threads")
    scale = TINY if options.tiny else Scale()
    scale = replace(scale, repeats=options.repeats or scale.repeats)
    for part in options.parts or PARTS:
        PARTS[part](scale)


if __name__ == "__main__":
    main()
