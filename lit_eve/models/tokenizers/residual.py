"""Residual quantization: each stage quantizes what the stages before it left over.

Shapes: B images, D channels, H/W cells of the grid, N = B * H * W tokens, Q stages.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lit_eve.models.tokenizers.fsq import FiniteScalarQuantizer
from lit_eve.models.tokenizers.gradients import straight_through
from lit_eve.models.tokenizers.lfq import LookupFreeQuantizer
from lit_eve.models.tokenizers.quantizer import Grid, Quantized, Quantizer, to_grid, to_tokens
from lit_eve.models.tokenizers.standardize import Standardize
from lit_eve.models.tokenizers.vector import VectorQuantizer

Stage = VectorQuantizer | FiniteScalarQuantizer | LookupFreeQuantizer


class ResidualQuantizer(Quantizer):
    """RVQ: r_0 = latent, q_i = Q_i(r_i), r_(i+1) = r_i - q_i; the sum of all q_i goes out.

    The gradient passes the whole stack once, by the stages' own estimator from the latent to the
    sum: the straight-through estimator gives d out / d latent = 1, the rotation that of the latent
    onto the sum. Estimating it per stage and adding up, as vector-quantize-pytorch does, gives Q
    times the decoder's gradient and is not what the paper's one codec-wide estimator implies; the
    stages called one by one give it. Each stage's losses reach the encoder through its own
    residual, in which the codes before it count as constants; losses of one name are added.

    Codes are (B, Q, H, W). FSQ and LFQ stages have levels of a fixed size, so each works on its
    residual enlarged to that size: by L - 1 per FSQ channel and by 2 for LFQ from stage to stage.

    Args:
        stages: quantizers of the same kind and shape, first to last.

    Raises:
        ValueError: if there are no stages, they differ in channels or codes, or one standardizes.

    Source:
        Zeghidour et al. 2021, arXiv:2107.03312, algorithm 1; the enlargement is that of
        lucidrains' vector-quantize-pytorch, whose newest FSQ stages have other, symmetric levels.
    """

    shrinkage: Tensor

    def __init__(self, stages: Sequence[Stage]) -> None:
        shapes = {(stage.in_channels, stage.num_codes) for stage in stages}
        if len(shapes) != 1:
            raise ValueError(
                f"residual stages of (channels, codes) {sorted(shapes)} do not form a stack: give "
                "at least one stage, and all of them the same channels and codes."
            )
        first = stages[0]
        if any(isinstance(part, Standardize) for stage in stages for part in stage.modules()):
            raise ValueError(
                "residual stages that standardize what they are given do not add up to the latent: "
                "leave `standardize` out, or use the FSQ alone."
            )
        super().__init__(first.in_channels, first.out_channels, first.num_codes)
        self.stages = nn.ModuleList(stages)
        self.register_buffer("shrinkage", _shrinkage(first), persistent=False)

    def quantize(self, latent: Tensor) -> Quantized:
        """Stage after stage on what is left."""
        total = torch.zeros_like(latent)
        codes: list[Tensor] = []
        losses: dict[str, Tensor] = {}
        statistics: dict[str, Tensor] = {}
        for number, (stage, scale) in enumerate(self._scaled_stages()):
            stage_out: Quantized = stage.quantize((latent - total) / scale)
            total = total + stage_out.latent.detach() * scale
            assert stage_out.codes is not None
            codes.append(stage_out.codes)
            for name, loss in stage_out.losses.items():
                losses[name] = losses[name] + loss if name in losses else loss
            for name, value in stage_out.statistics.items():
                statistics[f"stage_{number + 1}/{name}"] = value
        return Quantized(
            self._pass_gradient(latent, total), torch.stack(codes, 1), losses, statistics
        )

    def look_up(self, codes: Tensor, grid: Grid | None) -> Tensor:
        """Codes (B, Q, H, W) to the sum of their vectors, (B, D, H, W).

        Fewer than Q stages may be given: the first ones alone are a coarser image.
        """
        if codes.ndim != 4 or codes.shape[1] > len(self.stages):
            raise ValueError(
                f"codes of shape {tuple(codes.shape)} do not fit {len(self.stages)} residual "
                f"stages: (images, at most {len(self.stages)}, rows, columns) is needed."
            )
        stages = zip(codes.unbind(1), self._scaled_stages(), strict=False)
        parts = [stage.look_up(level, grid) * scale for level, (stage, scale) in stages]
        return torch.stack(parts).sum(0)

    @property
    def levels_of_codes(self) -> tuple[str, ...]:
        """`stage_1`, `stage_2`, ..."""
        return tuple(f"stage_{number + 1}" for number in range(len(self.stages)))

    def split(self, codes: Tensor, grid: Grid) -> dict[str, Tensor]:
        """The codes of every stage."""
        return dict(zip(self.levels_of_codes, codes.unbind(1), strict=True))

    def _scaled_stages(self) -> list[tuple[Stage, Tensor]]:
        """Every stage with what its residual is divided by, (1, D, 1, 1)."""
        return [
            (stage, (self.shrinkage**number).view(1, -1, 1, 1))  # type: ignore[misc]
            for number, stage in enumerate(self.stages)
        ]

    def _pass_gradient(self, latent: Tensor, total: Tensor) -> Tensor:
        first = self.stages[0]
        if not isinstance(first, VectorQuantizer):
            return straight_through(latent, total)
        passed = first.pass_gradient(to_tokens(latent), to_tokens(total))  # (N, D)
        return to_grid(passed, latent.shape)


def _shrinkage(stage: Stage) -> Tensor:
    """How much smaller the residual is than what was quantized, per channel, (D,)."""
    if isinstance(stage, FiniteScalarQuantizer):
        return 1 / (stage.levels.to(torch.float32) - 1)
    factor = 0.5 if isinstance(stage, LookupFreeQuantizer) else 1.0
    return torch.full((stage.in_channels,), factor, dtype=torch.float32)
