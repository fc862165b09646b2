"""VAR's multi-scale quantizer: an image as code maps from coarse to fine, one shared codebook.

Shapes: B images, D channels, H/W cells of the full grid, S scales of h_k x w_k cells,
T = sum of h_k * w_k codes of an image, P refining convolutions.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_eve.models.tokenizers.codebook import LearnedCodebook
from lit_eve.models.tokenizers.gradients import straight_through
from lit_eve.models.tokenizers.quantizer import Grid, Quantized, Quantizer, to_grid, to_tokens


class MultiScaleQuantizer(Quantizer):
    """Residual quantization over resolutions: coarse first, each scale adds detail.

    At scale k the rest is averaged down to h_k x w_k, every cell becomes its nearest code, the map
    is enlarged (bicubic) to H x W, refined by phi(x) = (1 - r) x + r conv3(x), added to the result
    and taken from the rest. The last scale is the full grid and is not resampled.

    Codes are (B, T): the maps one after another, row by row. The scales are given for one grid; for
    a latent of another size they are scaled along, each at least 1 x 1, the last one the grid.

    Args:
        codebook: shared by all scales; it learns from the loss. With `cosine` codes are found by
            their direction but added at their own length: the rest gets shorter and shorter.
        scales: rows and columns of every scale, from coarse to the full grid; neither may shrink.
        num_refiners: P convolutions, each serving the scales nearest to it.
        refiner_share: r.
        commitment_weight: beta of the loss, the mean over scales of
            beta * mse(sg(result), latent) + codebook weight * mse(result, sg(latent)).

    Raises:
        ValueError: if the scales are no way from coarse to fine.

    Source:
        Tian et al. 2024, arXiv:2404.02905, algorithms 1 and 2, section 3.2; which scale uses which
        convolution: the published code.
    """

    def __init__(
        self,
        codebook: LearnedCodebook,
        scales: Sequence[Grid],
        num_refiners: int = 4,
        refiner_share: float = 0.5,
        commitment_weight: float = 0.25,
    ) -> None:
        super().__init__(codebook.width, codebook.width, codebook.num_codes)
        _check_scales(scales)
        self.codebook = codebook
        self.scales = tuple((int(rows), int(columns)) for rows, columns in scales)
        self.refiner_share = refiner_share
        self.commitment_weight = commitment_weight
        self.refiners = nn.ModuleList(
            nn.Conv2d(codebook.width, codebook.width, 3, padding=1, dtype=torch.float32)
            for _ in range(num_refiners)
        )

    def quantize(self, latent: Tensor) -> Quantized:
        """Coarse to fine, and the loss of every partial result."""
        target = latent.detach()  # (B, D, H, W)
        scales = self.scales_of((latent.shape[2], latent.shape[3]))
        if self.training:
            self.codebook.begin(self.codebook.ready(to_tokens(target)))
        result, rest = torch.zeros_like(target), target
        codes: list[Tensor] = []
        seen: list[Tensor] = []
        codebook_loss = commitment_loss = target.new_zeros(())
        for number, scale in enumerate(scales):
            tokens = self.codebook.ready(to_tokens(_shrunk(rest, scale)))  # (B * h * w, D)
            picked = self.codebook.nearest(tokens)
            detail = self._detail(picked, number, scale, target.shape)  # (B, D, H, W)
            result = result + detail
            rest = rest - detail.detach()
            codebook_loss = codebook_loss + F.mse_loss(result, target)
            commitment_loss = commitment_loss + F.mse_loss(latent, result.detach())
            codes.append(picked.view(len(latent), -1))
            seen.append(tokens)
        statistics = {"quantization_error": rest.square().sum(1).mean()}
        if self.training:
            flat = torch.cat([part.flatten() for part in codes])
            statistics["replaced_codes"] = self.codebook.observe(torch.cat(seen), flat)
        losses = {
            "commitment": self.commitment_weight / len(scales) * commitment_loss,
            "codebook": self.codebook.weight / len(scales) * codebook_loss,
        }
        return Quantized(straight_through(latent, result), torch.cat(codes, 1), losses, statistics)

    def look_up(self, codes: Tensor, grid: Grid | None) -> Tensor:
        """Codes (B, T) to the full result, (B, D, H, W).

        Args:
            codes: of all scales, (B, T).
            grid: H x W of the latent; the grid of the given scales when left out.
        """
        return self.partial_results(codes, grid)[-1]

    def partial_results(self, codes: Tensor, grid: Grid | None = None) -> list[Tensor]:
        """The result after every scale, S times (B, D, H, W): the image getting sharper.

        Averaged down to the next scale, each but the last is what VAR reads to predict that scale.
        """
        results: list[Tensor] = []
        parts = self._split(codes, grid)
        rows, columns = parts[-1].shape[1:]
        full = torch.Size((len(codes), self.out_channels, rows, columns))
        result = torch.zeros(full, dtype=torch.float32, device=codes.device)
        for number, part in enumerate(parts):
            scale = (part.shape[1], part.shape[2])
            result = result + self._detail(part.flatten(), number, scale, full)
            results.append(result)
        return results

    @property
    def levels_of_codes(self) -> tuple[str, ...]:
        """`scale_1`, `scale_2`, ..."""
        return tuple(f"scale_{number + 1}" for number in range(len(self.scales)))

    def split(self, codes: Tensor, grid: Grid) -> dict[str, Tensor]:
        """The code map of every scale, (B, h_k, w_k)."""
        return dict(zip(self.levels_of_codes, self._split(codes, grid), strict=True))

    def scales_of(self, grid: Grid) -> list[Grid]:
        """The scales for a latent of H x W: the given ones, or those scaled along."""
        full = self.scales[-1]
        if grid == full:
            return list(self.scales)
        return [
            (max(1, round(rows * grid[0] / full[0])), max(1, round(columns * grid[1] / full[1])))
            for rows, columns in self.scales[:-1]
        ] + [grid]

    def _split(self, codes: Tensor, grid: Grid | None) -> list[Tensor]:
        scales = self.scales_of(grid or self.scales[-1])
        lengths = [rows * columns for rows, columns in scales]
        if codes.ndim != 2 or codes.shape[1] != sum(lengths):
            raise ValueError(
                f"codes of shape {tuple(codes.shape)} do not fit a grid of {scales[-1]}, which has "
                f"{sum(lengths)} codes an image over {len(scales)} scales. Give the grid (rows, "
                "columns) that the image was encoded with."
            )
        parts = torch.split(codes, lengths, dim=1)
        return [part.view(-1, *scale) for part, scale in zip(parts, scales, strict=True)]

    def _detail(self, codes: Tensor, number: int, scale: Grid, full: torch.Size) -> Tensor:
        """What scale `number` adds: its codes (B * h * w,) enlarged and refined, (B, D, H, W)."""
        vectors = F.embedding(codes, self.codebook.vectors)  # (B * h * w, D)
        image = to_grid(vectors, torch.Size((full[0], full[1], *scale))).contiguous()
        if scale != tuple(full[2:]):
            image = F.interpolate(image, tuple(full[2:]), mode="bicubic")  # (B, D, H, W)
        refine = self.refiners[self._refiner(number)]
        refined: Tensor = refine(image)
        return image * (1 - self.refiner_share) + refined * self.refiner_share

    def _refiner(self, number: int) -> int:
        """The convolution whose tick is nearest to a scale's place among the scales, 0 to 1."""
        count, place = len(self.refiners), number / max(1, len(self.scales) - 1)
        first = 1 / 3 / count if count == 4 else 1 / 2 / count
        step = (1 - first - first) / max(1, count - 1)
        # Scale 2 of 10 lies halfway between two ticks: the published model was trained with what
        # the rounding of exactly these operations makes of it.
        return min(range(count), key=lambda tick: abs(tick * step + first - place))


def _shrunk(image: Tensor, scale: Grid) -> Tensor:
    """Averaged down to a scale, (B, D, h, w)."""
    return image if scale == tuple(image.shape[2:]) else F.interpolate(image, scale, mode="area")


def _check_scales(scales: Sequence[Grid]) -> None:
    grows = all(a[0] <= b[0] and a[1] <= b[1] and tuple(a) != tuple(b) for a, b in pairwise(scales))
    if not scales or min(min(scale) for scale in scales) < 1 or not grows:
        raise ValueError(
            f"scales {list(scales)} are no way from coarse to fine: give (rows, columns) of at "
            "least (1, 1), each larger than the one before, the last one the full grid."
        )
