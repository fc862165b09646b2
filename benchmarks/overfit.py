"""Can each kind of tokenizer remember sixteen scenes? Codes and all, or something is broken.

    uv run python -m benchmarks.overfit            all four, 46 to 57 CPU seconds each

Each laptop file's model is trained on the same sixteen scenes, all of them in every step, and
rebuilds them from hard codes: PSNR over 25 dB is asked for.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from benchmarks.measuring import row
from lit_eve import assemble
from lit_eve.assemble import tokenizers
from lit_eve.models.tokenizers.gumbel import GumbelQuantizer
from lit_eve.schema import TokenizerExperiment, load
from lit_eve_callbacks.schedules import cosine
from lit_eve_data.disk.reading import RecordStore
from lit_eve_data.encoding.images import Native
from lit_eve_data.loading.image_loader import ImageMaker, ImagesTask, ImageView

FOLDER = Path(__file__).parents[1] / "experiments" / "tokenizer"
NAMES = ("dalle_dvae", "vq", "fsq", "lfq")
SCENES = "{train: 16, val: 1, test: 1, sides: [32, 32], digits: [1, 2], backgrounds: [plain]}"
WARMUP = 30
"""Steps: at full rate from the first, codes die that never come back."""
WANTED = 25.0
"""PSNR in dB."""


def experiment(name: str) -> TokenizerExperiment:
    """A laptop file; what is random starts from its seed."""
    found = load(FOLDER / f"{name}_laptop.yaml", [f"datasets.scenes={SCENES}"])
    assert isinstance(found, TokenizerExperiment)
    return found


def scenes(options: TokenizerExperiment, root: Path) -> Tensor:
    """Sixteen scenes, (16, 3, 32, 32)."""
    store = RecordStore(assemble.dataset(options.datasets["scenes"], root), "train")
    view = ImageView(store.view, Native(), options.model.cell)
    return ImageMaker([view])(ImagesTask(0, (32, 32), range(16), [None] * 16)).batch.pixels


def remember(options: TokenizerExperiment, pixels: Tensor, steps: int) -> tuple[float, int]:
    """PSNR of the scenes from hard codes, and how many codes they use, after `steps` steps."""
    torch.manual_seed(options.seed)
    model = tokenizers.build_tokenizer(options.model).train()
    likelihood = tokenizers.likelihood(options.model)
    parts = [
        {"params": list(model.get_submodule(part).parameters()), "peak": trained.lr}
        for part, trained in options.trained["train"].train.items()
    ]
    optimizer = torch.optim.AdamW(parts, weight_decay=0.0, betas=(0.9, 0.95))
    for step in range(steps):
        share = cosine(step, start=1.0, end=0.01, steps=steps) * min(1, (step + 1) / WARMUP)
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * share
        if isinstance(model.quantizer, GumbelQuantizer):
            hard = cosine(step, start=1.0, end=1 / 16, steps=0.7 * steps)
            model.quantizer.temperature.fill_(hard)
        out = model(pixels)
        loss = likelihood(out.outputs, out.target).mean() + sum(out.quantized.losses.values())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    error = (model.reconstruct(pixels) - pixels).square().mean((1, 2, 3))  # (16,)
    return float((-10 * error.log10()).mean()), len(set(model.encode(pixels).flatten().tolist()))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("names", nargs="*", default=NAMES)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    row("16 scenes", "PSNR", "codes used", "wall s", "CPU s")
    missed = []
    with TemporaryDirectory() as root:
        for name in options.names:
            file = experiment(name)
            pixels = scenes(file, Path(root))
            wall, cpu = time.perf_counter(), time.process_time()
            psnr, used = remember(file, pixels, options.steps)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            row(name, f"{psnr:.2f}", str(used), f"{wall:.1f}", f"{cpu:.1f}")
            if psnr < WANTED:
                missed.append(name)
    if missed:
        raise SystemExit(f"under {WANTED} dB: {', '.join(missed)}")


if __name__ == "__main__":
    main()
