"""How fast the quantizers and a whole tokenizer step are, beside the peer and the arithmetic floor.

    uv run python -m benchmarks.tokenizer              everything that runs on a CPU, two threads
    uv run python -m benchmarks.tokenizer vq --tiny    one part, small: does it run at all?

vq:      a training step (forward, backward, moving averages) of 8 x 1024 tokens of width 256,
         float32, for three codebook sizes, beside vector-quantize-pytorch (`uv run --with
         vector-quantize-pytorch ...`; without it, its algorithm restated) and the one product of
         all tokens with all codes that a step cannot do without. Also the memory each needs besides
         its inputs, each in a process of its own, and whether both find the same codes.
gumbel:  a step of 8 x 1024 scores of 8192 codes, with the KL, beside `F.gumbel_softmax` and an
         einsum (without a KL), and the floor: its three products, and one reading and writing of
         the scores.
gpu:     the nearest codes of 65,536 tokens, and a whole step of DALL-E's dVAE at full size.

Ratios are of medians taken in turns in one process, so that all meet the same machine.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measuring import row, timed
from lit_eve.losses.likelihood import logit_laplace
from lit_eve.models.tokenizers.codebook import EmaCodebook, Liveliness
from lit_eve.models.tokenizers.dalle import DalleDecoder, DalleEncoder
from lit_eve.models.tokenizers.gumbel import GumbelQuantizer
from lit_eve.models.tokenizers.image_tokenizer import ImageTokenizer
from lit_eve.models.tokenizers.nearest import nearest_codes
from lit_eve.models.tokenizers.pixels import LogitLaplacePixels
from lit_eve.models.tokenizers.vector import VectorQuantizer

H200_BF16 = 989e12
"""Peak floating-point operations per second, dense."""

Step = Callable[[], None]


@dataclass(frozen=True)
class Scale:
    """Sizes of everything; `tiny` only shows that it runs."""

    images: int = 8
    side: int = 32
    width: int = 256
    codes: tuple[int, ...] = (1024, 8192, 65536)
    gumbel_codes: int = 8192
    repeats: int = 7

    @property
    def tokens(self) -> int:
        """Of a batch."""
        return self.images * self.side**2


TINY = Scale(2, 4, 16, (64, 256), 64, 2)


# vq ------------------------------------------------------------------------------------------


def latents(scale: Scale, channels: int) -> Tensor:
    """A batch as a channels-last convolution hands it out."""
    latent = torch.randn(scale.images, channels, scale.side, scale.side)
    return latent.contiguous(memory_format=torch.channels_last).requires_grad_()


class OneHot(nn.Module):
    """The peer's algorithm: rooted distances, a one-hot matrix, two products with it."""

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.table, self.sums = table.clone(), table.clone()
        self.counts = torch.ones(len(table))

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Quantized tokens, codes and loss, as `VectorQuantize` returns them."""
        flat = tokens.detach().flatten(0, 1)
        squares = flat.square().sum(1, keepdim=True) + self.table.square().sum(1)
        distance = (squares + (flat @ self.table.T) * -2).clamp(min=0).sqrt()
        codes = (-distance).argmax(1)
        one_hot = F.one_hot(codes, len(self.table)).to(flat.dtype)
        quantized = (one_hot @ self.table).view_as(tokens)
        self.counts.lerp_(one_hot.sum(0), 0.01)
        self.sums.lerp_(one_hot.T @ flat, 0.01)
        total = self.counts.sum()
        smoothed = (self.counts + 1e-5) / (total + len(self.table) * 1e-5) * total
        self.table = self.sums / smoothed.unsqueeze(1)
        loss = F.mse_loss(quantized, tokens) * 0.25
        return tokens + (quantized - tokens).detach(), codes.view(tokens.shape[:2]), loss


def peer(table: Tensor) -> tuple[str, Callable[[Tensor], Any]]:
    """The peer with these codes, or its algorithm if it is not installed."""
    try:
        from vector_quantize_pytorch import VectorQuantize  # type: ignore[import-not-found]
    except ModuleNotFoundError as error:
        if error.name != "vector_quantize_pytorch":  # it is there, but something it needs is not
            raise
        return "one-hot restatement", OneHot(table)
    made = VectorQuantize(
        dim=table.shape[1],
        codebook_size=len(table),
        decay=0.99,
        commitment_weight=0.25,
        rotation_trick=False,
    )
    made._codebook.embed.data.copy_(table)
    made._codebook.embed_avg.data.copy_(table)
    return "vector-quantize-pytorch", made


def ours(table: Tensor) -> VectorQuantizer:
    codes, width = table.shape
    book = EmaCodebook(codes, width, liveliness=Liveliness(start="random"))
    book.put(slice(None), table, torch.ones(len(table)))
    return VectorQuantizer(book)


def our_step(quantizer: VectorQuantizer, latent: Tensor, gradient: Tensor) -> None:
    """A step, with the gradient that a decoder would hand back."""
    out = quantizer(latent)
    torch.autograd.backward((out.latent, out.losses["commitment"]), (gradient, None))
    latent.grad = None


def peer_step(quantizer: Callable[[Tensor], Any], latent: Tensor, gradient: Tensor) -> None:
    """The same of the peer."""
    quantized, _, loss = quantizer(as_rows(latent))
    torch.autograd.backward((quantized, loss.sum()), (as_rows(gradient), None))
    latent.grad = None


def as_rows(latent: Tensor) -> Tensor:
    """(B, D, H, W) -> (B, H * W, D), without a copy of what is channels-last."""
    return latent.flatten(2).mT


def vq(scale: Scale) -> None:
    """VQ steps for every codebook size."""
    for codes in scale.codes:
        torch.manual_seed(0)
        table, latent = torch.randn(codes, scale.width), latents(scale, scale.width)
        gradient = latents(scale, scale.width).detach()
        name, other = peer(table)
        tokens = latent.detach().movedim(1, -1).flatten(0, 2)
        found = nearest_codes(tokens, table, "euclidean")
        same = int((found == other(as_rows(latent.detach()))[1].flatten()).sum())
        room = torch.empty(len(tokens), codes)
        times = timed(
            {
                "product": partial(multiply, tokens, table.T, room),
                "ours": partial(our_step, ours(table), latent, gradient),
                "peer": partial(peer_step, other, latent, gradient),
            },
            scale.repeats,
        )
        del room
        floor, mine, theirs = (times[part] for part in ("product", "ours", "peer"))
        row(f"vq, {codes} codes", "wall s", "CPU s", "x product", "x ours", "extra MiB")
        row("  the one product", f"{floor[0]:.4f}", f"{floor[1]:.4f}")
        for label, key, taken in (("ours", "ours", mine), (name, "peer", theirs)):
            row(
                f"  {label}",
                f"{taken[0]:.4f}",
                f"{taken[1]:.4f}",
                f"{taken[0] / floor[0]:.2f}",
                f"{taken[0] / mine[0]:.2f}",
                f"{extra_memory(key, codes, scale):.0f}",
            )
        print(f"  same codes: {same} of {len(tokens)}")


def multiply(left: Tensor, right: Tensor, room: Tensor) -> None:
    torch.mm(left, right, out=room)


def touch(source: Tensor, room: Tensor) -> None:
    torch.add(source, 1.0, out=room)


def extra_memory(part: str, codes: int, scale: Scale) -> float:
    """MiB that a step needs at its peak besides its inputs and codes, in a fresh process."""
    sizes = [str(number) for number in (codes, scale.images, scale.side, scale.width)]
    command = [sys.executable, "-m", "benchmarks.tokenizer", "--measure", part, *sizes]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1])


def measure(part: str, codes: int, images: int, side: int, width: int) -> None:
    """Print what `extra_memory` wants to know."""
    small = Scale(images=1, side=2, width=width)
    table = torch.randn(codes, width)
    steps: dict[str, Callable[[Tensor, Tensor], None]] = {
        "ours": partial(our_step, ours(table)),
        "peer": partial(peer_step, peer(table)[1]),
    }
    steps[part](latents(small, width), latents(small, width).detach())  # what is set up once
    latent, gradient = (latents(Scale(images=images, side=side), width) for _ in range(2))
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = peak_kib()
    steps[part](latent, gradient.detach())
    print((peak_kib() - before) / 1024)


def peak_kib() -> int:
    """Most memory this process has had; not `ru_maxrss`, which it inherits from its parent."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


# gumbel --------------------------------------------------------------------------------------


def gumbel(scale: Scale) -> None:
    """The relaxed codebook's step."""
    torch.manual_seed(0)
    codes, width = scale.gumbel_codes, scale.width
    scores = latents(scale, codes)
    quantizer = GumbelQuantizer(codes, width, 192)
    quantizer.temperature.fill_(0.5)
    quantizer.kl_weight.fill_(6.6)
    tokens = scores.detach().movedim(1, -1).flatten(0, 2)
    table, mixed = quantizer.codebook.detach(), torch.randn(scale.tokens, width)
    room, small = torch.empty_like(tokens), torch.empty(scale.tokens, width)
    gradient = torch.empty(codes, width)

    def products() -> None:
        torch.mm(tokens, table, out=small)
        torch.mm(mixed, table.T, out=room)
        torch.mm(tokens.T, mixed, out=gradient)

    def our_gumbel() -> None:
        out = quantizer(scores)
        (out.latent.sum() + out.losses["kl"]).backward()
        scores.grad = quantizer.codebook.grad = None

    def common() -> None:
        soft = F.gumbel_softmax(scores, tau=0.5, dim=1)
        mixed = torch.einsum("bnhw,nd->bdhw", soft, quantizer.codebook)
        mixed.sum().backward()  # type: ignore[no-untyped-call]
        scores.grad = quantizer.codebook.grad = None

    runs: dict[str, Step] = {
        "the three products": products,
        "one reading and writing": partial(touch, tokens, room),
        "ours, with the KL": our_gumbel,
        "gumbel_softmax + einsum, no KL": common,
    }
    times = timed(runs, scale.repeats)
    floor = sum(times[part][0] for part in list(runs)[:2])
    row(f"gumbel, {codes} codes", "wall s", "CPU s", "x floor")
    for label, (wall, cpu) in times.items():
        row(f"  {label}", f"{wall:.4f}", f"{cpu:.4f}", f"{wall / floor:.2f}")


# gpu -----------------------------------------------------------------------------------------


def gpu(scale: Scale) -> None:
    """Nearest codes, and DALL-E's dVAE."""
    if not torch.cuda.is_available():
        print("gpu: no CUDA device here")
        return
    tokens, table = (torch.randn(n, 256, device="cuda") for n in (65_536, 8192))
    half = tokens.bfloat16(), table.bfloat16().T
    runs: dict[str, Step] = {
        "product, float32": lambda: finish(tokens @ table.T),
        "product, bfloat16": lambda: finish(half[0] @ half[1]),
        "nearest codes, float32": lambda: finish(nearest_codes(tokens, table, "euclidean")),
    }
    row("gpu, 65,536 tokens, 8192 codes", "wall s")
    for label, (wall, _) in timed(runs, scale.repeats).items():
        row(f"  {label}", f"{wall:.5f}")
    for compiled in (False, True):
        _dvae(scale, compiled)


def _dvae(scale: Scale, compiled: bool) -> None:
    images = 64
    with torch.device("cuda"):
        model = ImageTokenizer(
            DalleEncoder(8192),
            GumbelQuantizer(8192, 128, 192),
            DalleDecoder(),
            LogitLaplacePixels(),
        )
        pixels = torch.rand(images, 3, 256, 256)
    if compiled:
        model.encoder.compile()  # type: ignore[attr-defined]
        model.decoder.compile()  # type: ignore[attr-defined]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step() -> None:
        with torch.autocast("cuda", torch.bfloat16):
            out = model(pixels)
            loss = logit_laplace(out.outputs, out.target).mean() + out.quantized.losses["kl"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        torch.cuda.synchronize()

    with FlopCounterMode(display=False) as counter:
        step()
    wall, _ = timed({"step": step}, scale.repeats)["step"]
    share = counter.get_total_flops() / wall / H200_BF16
    label = f"  dVAE step, {images} images, {'compiled' if compiled else 'eager'}"
    row(label, f"{wall:.3f}", f"{images / wall:.0f}/s", f"{share:.1%}")


def finish(_: Tensor) -> None:
    torch.cuda.synchronize()


PARTS: dict[str, Callable[[Scale], None]] = {"vq": vq, "gumbel": gumbel, "gpu": gpu}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="all of them if none")
    parser.add_argument("--tiny", action="store_true", help="small sizes: does it run at all?")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=Scale.repeats)
    parser.add_argument("--codes", type=int, nargs="+", default=Scale.codes, help="of the vq part")
    parser.add_argument("--measure", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.measure:
        part, *sizes = options.measure
        measure(part, *(int(size) for size in sizes))
        return
    print(f"torch {torch.__version__}, {options.threads} threads")
    scale = Scale(codes=tuple(options.codes), repeats=options.repeats)
    for part in options.parts or PARTS:
        PARTS[part](TINY if options.tiny else scale)


if __name__ == "__main__":
    main()
