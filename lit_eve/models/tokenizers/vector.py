"""Vector quantization: every cell of the grid becomes the nearest vector of a codebook.

Shapes: B images, D channels, H/W cells of the grid, N = B * H * W tokens, K codes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_eve.models.tokenizers.choices import check_choice
from lit_eve.models.tokenizers.codebook import Codebook
from lit_eve.models.tokenizers.gradients import (
    Estimator,
    rotation_trick,
    straight_through,
    straight_through_and_distance,
)
from lit_eve.models.tokenizers.quantizer import (
    Grid,
    Quantized,
    Quantizer,
    check_spatial,
    to_grid,
    to_tokens,
)

MEASURED = 1024
"""Vectors whose length is measured in a step, or a few more; fewer if there are fewer."""


class VectorQuantizer(Quantizer):
    """VQ-VAE's quantizer: nearest code, commitment loss, estimated gradient.

    The order of a training step is the paper's: look up, compute the losses, and only then move
    the codebook.

    Args:
        codebook: the codes; it decides how they learn and what near means.
        commitment_weight: of the mean squared distance of the encoder's output to its code, with
            the gradient to the encoder.
        gradient: `straight_through` or `rotation`, how the decoder's gradient reaches the encoder.

    Raises:
        ValueError: if the gradient is unknown.

    Source:
        van den Oord et al. 2017, arXiv:1711.00937, section 3. Both losses are means over all
        elements, as in the authors' code; the paper writes norms.
    """

    def __init__(
        self,
        codebook: Codebook,
        commitment_weight: float = 0.25,
        gradient: Estimator = "straight_through",
    ) -> None:
        super().__init__(codebook.width, codebook.width, codebook.num_codes)
        check_choice("the quantizer's gradient", gradient, Estimator)
        self.codebook = codebook
        self.commitment_weight = commitment_weight
        self.gradient: Estimator = gradient

    def quantize(self, latent: Tensor) -> Quantized:
        """Look up, lose, learn."""
        tokens = self.codebook.ready(to_tokens(latent))  # (N, D)
        if self.training:
            self.codebook.begin(tokens.detach())
        codes = self.codebook.nearest(tokens.detach())  # (N,)
        vectors = self.codebook(codes)  # (N, D)
        passed, distance = self._pass(tokens, vectors.detach())  # (N, D), scalar
        losses = {"commitment": self.commitment_weight * distance}
        losses |= self.codebook.losses(vectors, tokens)
        statistics = {
            "quantization_error": distance.detach() * self.in_channels,
            "latent_norm": _mean_norm(tokens),
            "code_norm": _mean_norm(vectors),
        }
        if self.training:
            statistics["replaced_codes"] = self.codebook.observe(tokens.detach(), codes)
        return Quantized(
            to_grid(passed, latent.shape),  # (B, D, H, W)
            codes.view(len(latent), *latent.shape[2:]),  # (B, H, W)
            losses,
            statistics,
        )

    def _pass(self, tokens: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """`pass_gradient`, and the mean squared distance of tokens to codes."""
        if self.gradient == "straight_through":
            return straight_through_and_distance(tokens, vectors)
        return self.pass_gradient(tokens, vectors), F.mse_loss(tokens, vectors)

    def pass_gradient(self, tokens: Tensor, vectors: Tensor) -> Tensor:
        """The codes' values, (N, D), with the gradient that the tokens are given."""
        if self.gradient == "rotation":
            return rotation_trick(tokens, vectors)
        return straight_through(tokens, vectors)

    def look_up(self, codes: Tensor, grid: Grid | None) -> Tensor:
        """Codes (B, H, W) to their vectors, (B, D, H, W)."""
        check_spatial(codes, grid)
        vectors: Tensor = self.codebook(codes)  # (B, H, W, D)
        return vectors.permute(0, 3, 1, 2)


def _mean_norm(tokens: Tensor) -> Tensor:
    """Root mean square length of the vectors, (N, D) -> scalar.

    Of many vectors only some, evenly spread, are looked at: watching shall not cost a whole pass.
    """
    seen = tokens.detach()[:: max(1, len(tokens) // MEASURED)]
    mean_square: Tensor = torch.linalg.vector_norm(seen).square() / len(seen)
    return mean_square.sqrt()
