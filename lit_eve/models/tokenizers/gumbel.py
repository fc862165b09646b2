"""The relaxed categorical codebook of DALL-E's dVAE.

Shapes: B images, K codes, H/W cells of the grid, N = B * H * W tokens, D width of a code vector,
C tokens of one chunk.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from lit_eve.models.tokenizers.choices import check_choice
from lit_eve.models.tokenizers.nearest import best_column
from lit_eve.models.tokenizers.noise import NoiseSource, gumbel_noise
from lit_eve.models.tokenizers.quantizer import (
    Grid,
    Quantized,
    Quantizer,
    check_finite,
    check_spatial,
    to_grid,
    to_tokens,
)

Relaxation = Literal["relaxed", "straight_through"]

MAX_SCORES = 2**20
"""Most scores worked on at once on a CPU: 4 MB in float32, so that every pass stays in cache."""

LOG2_E = math.log2(math.e)


class GumbelQuantizer(Quantizer):
    """Scores of all codes in; in training a random mixture of code vectors out, else the best.

    The mixture is softmax((scores + Gumbel noise) / temperature) and stays soft in the forward and
    the backward pass; `straight_through` hands out the one best noisy code with the mixture's
    gradient. Codes are always those of the largest score without noise.

    The KL divergence to the uniform prior is that of softmax(scores): without noise and without
    temperature. Its weight is per value of the image, so that it adds to a likelihood averaged over
    all values: beta / (values an image has per position) times the mean over positions.

    Attributes:
        temperature, kl_weight: scalar buffers, meant to be annealed from outside.

    Args:
        num_codes: K, also the channels of the latent that comes in.
        width: D, channels that go out.
        values_per_position: pixel values for every cell: 3 * stride ** 2, 192 for 8x down.
        relaxation: `relaxed` or `straight_through`.

    Raises:
        ValueError: if the relaxation is unknown.

    Source:
        Ramesh et al. 2021, arXiv:2102.12092, sections 2.1 and A.2; Jang et al. 2017,
        arXiv:1611.01144. That the KL ignores noise and temperature: their authors' issue 26.
    """

    latent_spread: ClassVar[float] = 4.0
    """Scores that stand out of Gumbel noise, whose own deviation is 1.28, from the first step."""
    temperature: Tensor
    kl_weight: Tensor

    def __init__(
        self,
        num_codes: int,
        width: int,
        values_per_position: int,
        relaxation: Relaxation = "relaxed",
    ) -> None:
        super().__init__(num_codes, width, num_codes)
        check_choice("the quantizer's relaxation", relaxation, Relaxation)
        self.values_per_position = values_per_position
        self.relaxation: Relaxation = relaxation
        # As the 1x1 convolution it replaces: normal with variance 1 / inputs.
        vectors = torch.randn(num_codes, width, dtype=torch.float32) * num_codes**-0.5
        self.codebook = nn.Parameter(vectors)  # (K, D)
        self.register_buffer("temperature", torch.tensor(1.0, dtype=torch.float32))
        self.register_buffer("kl_weight", torch.tensor(0.0, dtype=torch.float32))

    def quantize(self, latent: Tensor) -> Quantized:
        """Relax in training, else take the best code."""
        scores = to_tokens(latent)  # (N, K)
        mixture = self._mix(scores) if self.training else _best_code(scores, self.codebook)
        kl = mixture.kl.mean()
        return Quantized(
            to_grid(mixture.vectors, latent.shape),  # (B, D, H, W)
            mixture.codes.view(len(latent), *latent.shape[2:]),  # (B, H, W)
            {"kl": self.kl_weight / self.values_per_position * kl},
            {"kl_nats": kl.detach(), "best_probability": mixture.best_probability.mean()},
        )

    def relax(self, latent: Tensor) -> Tensor:
        """The random mixture, (B, D, H, W), whatever the mode: what the decoder trains on.

        Raises:
            ValueError: if the latent holds what is no number.
        """
        check_finite(latent)
        with torch.autocast(latent.device.type, enabled=False):
            scores = to_tokens(latent.to(self.codebook.dtype))
            return to_grid(self._mix(scores).vectors, latent.shape).to(latent.dtype)

    def look_up(self, codes: Tensor, grid: Grid | None) -> Tensor:
        """Codes (B, H, W) to their vectors, (B, D, H, W)."""
        check_spatial(codes, grid)
        return F.embedding(codes, self.codebook).permute(0, 3, 1, 2)

    def _mix(self, scores: Tensor) -> Mixture:
        noise = gumbel_noise(len(scores), scores.shape[1], chunk_rows(scores), scores)
        hard = self.relaxation == "straight_through"
        return gumbel_mixture(scores, self.codebook, self.temperature, noise, hard)


class Mixture(NamedTuple):
    """Mixed code vectors and what is known of the scores they came from."""

    vectors: Tensor
    """(N, D)."""
    kl: Tensor
    """(N,), in nats: 0 for uniform scores, log K for a certain code."""
    codes: Tensor
    """(N,) int64, the largest score."""
    best_probability: Tensor
    """(N,), of that code, without noise and temperature; no gradient."""


def chunk_rows(scores: Tensor) -> int:
    """Tokens of one chunk: all at once on a GPU, as many as stay in cache on a CPU."""
    return len(scores) if scores.is_cuda else max(1, MAX_SCORES // scores.shape[1])


def gumbel_mixture(
    scores: Tensor, codebook: Tensor, temperature: Tensor, noise: NoiseSource, hard: bool
) -> Mixture:
    """Mix code vectors by softmax((scores + noise) / temperature), and the KL to uniform.

    One [tokens x codes] matrix is kept for the backward pass, the mixture's weights; nothing else
    of that size is written but the gradient of the scores.

    Args:
        scores: (N, K).
        codebook: (K, D).
        temperature: scalar above 0.
        noise: its rows, in chunks of `chunk_rows`.
        hard: hand out the best noisy code, with the gradient of the mixture.
    """
    mixed = _GumbelMixture.apply(scores, codebook, temperature, noise, hard)  # type: ignore[no-untyped-call]
    return Mixture(*mixed)


def _best_code(scores: Tensor, codebook: Tensor) -> Mixture:
    log_posterior = F.log_softmax(scores, dim=1)  # (N, K)
    best, codes = log_posterior.max(dim=1)
    kl = math.log(scores.shape[1]) + (log_posterior.exp() * log_posterior).sum(1)
    return Mixture(F.embedding(codes, codebook), kl, codes, best.detach().exp())


class _GumbelMixture(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        scores: Tensor,
        codebook: Tensor,
        temperature: Tensor,
        noise: NoiseSource,
        hard: bool,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        count, chunk = len(scores), chunk_rows(scores)
        weights = torch.empty(scores.shape, dtype=scores.dtype, device=scores.device)
        kl, log_total, best = (scores.new_empty(count) for _ in range(3))
        codes = torch.empty(count, dtype=torch.int64, device=scores.device)
        picked = codes.clone() if hard else None
        rooms = _rooms(scores, chunk)
        for start in range(0, count, chunk):
            rows = slice(start, min(start + chunk, count))
            found = _posterior(scores[rows], *(room[: rows.stop - start] for room in rooms))
            kl[rows], log_total[rows], best[rows], codes[rows] = found
            noisy = noise(rows).add_(scores[rows])  # (C, K)
            if picked is not None:
                picked[rows] = best_column(noisy)
            torch.softmax(noisy.div_(temperature), dim=1, out=weights[rows])
        mixed = weights @ codebook if picked is None else F.embedding(picked, codebook)
        ctx.save_for_backward(scores, codebook, temperature, weights, kl, log_total, picked)
        ctx.mark_non_differentiable(codes, best)
        return mixed, kl, codes, best

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_mixed: Tensor, grad_kl: Tensor, *_: Tensor
    ) -> tuple[Tensor, Tensor, None, None, None]:
        scores, codebook, temperature, weights, kl, log_total, picked = ctx.saved_tensors
        if picked is None:
            grad_codebook = weights.T @ grad_mixed
        else:
            grad_codebook = torch.zeros_like(codebook).index_add_(0, picked, grad_mixed)
        gradient = grad_mixed @ codebook.T  # (N, K), of the weights until the loop turns it
        entropy = math.log(scores.shape[1]) - kl  # (N,)
        chunk = chunk_rows(scores)
        rooms = _rooms(scores, chunk)
        for start in range(0, len(scores), chunk):
            rows = slice(start, min(start + chunk, len(scores)))
            grad, y = gradient[rows], weights[rows]
            grad.mul_(y)  # softmax: y (g - y.g) / temperature
            grad.addcmul_(y, grad.sum(1, keepdim=True), value=-1).div_(temperature)
            # KL: q (log q + H)
            log_q, q = (room[: rows.stop - start] for room in rooms)
            torch.sub(scores[rows], log_total[rows, None], out=log_q)
            torch.mul(log_q, LOG2_E, out=q).exp2_()
            grad.addcmul_(q, log_q.add_(entropy[rows, None]).mul_(grad_kl[rows, None]))
        return gradient, grad_codebook, None, None, None


def _rooms(scores: Tensor, chunk: int) -> tuple[Tensor, Tensor]:
    """Two matrices to work in: fresh memory for every chunk would cost more than the arithmetic."""
    size = (min(chunk, len(scores)), scores.shape[1])
    return scores.new_empty(size), scores.new_empty(size)


def _posterior(
    scores: Tensor, excess: Tensor, odds: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What is known of every row of (C, K) without noise.

    Args:
        scores: the rows.
        excess: room to work in, like `scores`.
        odds: more of it.

    Returns:
        KL to uniform, log of the sum of exponentials, probability of the best code, that code.
    """
    codes = best_column(scores)
    top = scores.gather(1, codes.unsqueeze(1))  # (C, 1)
    torch.sub(scores, top, out=excess)  # (C, K), at most 0
    torch.mul(excess, LOG2_E, out=odds).exp2_()  # exp2 takes a third of exp's time
    total = odds.sum(1)
    mean_excess = odds.mul_(excess).sum(1) / total
    kl = math.log(scores.shape[1]) + mean_excess - total.log()
    return kl, top.squeeze(1) + total.log(), total.reciprocal(), codes
