"""Code vectors: looked up by nearness, learnt by moving averages or by gradients, kept alive.

Shapes: N tokens on this rank, D channels, K codes, M codes revived at most in one step.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_eve.models.tokenizers.choices import check_choice
from lit_eve.models.tokenizers.kmeans import kmeans, sum_by_code
from lit_eve.models.tokenizers.nearest import Distance, nearest_codes
from lit_eve.models.tokenizers.quantizer import check_finite
from lit_eve.models.tokenizers.ranks import (
    first_rank_decides,
    pick_rows,
    rows_of_all,
    sum_over_ranks,
)

Start = Literal["kmeans", "data", "random"]
"""Where the codes begin: means of the first batch, tokens of it, or random vectors."""

KMEANS_ROUNDS = 10

REVIVED_AT_ONCE = 64
"""At most one code in this many is revived in one step, which needs no question to the device."""


@dataclass(frozen=True)
class Liveliness:
    """How a codebook starts and what happens to codes that nobody uses.

    Raises:
        ValueError: if the start is unknown, or the decay or the threshold is out of range.
    """

    start: Start = "kmeans"
    decay: float = 0.99
    """Of the moving average of each code's tokens a step."""
    revive_below: float = 0.0
    """A code whose average falls under this share of N / K, what each code would have if all were
    used alike, is replaced by a token. A number of tokens, as elsewhere, would mean something else
    for every batch size. 0 never replaces."""

    def __post_init__(self) -> None:
        check_choice("the codebook's start", self.start, Start)
        if not 0 <= self.decay < 1:
            raise ValueError(
                f"a codebook decay of {self.decay} is no moving average: give 0 to 1, e.g. 0.99."
            )
        if not 0 <= self.revive_below < 1:
            raise ValueError(
                f"revive_below is a share of the mean use of a code, so {self.revive_below} is out "
                "of range: at 1 even codes of ordinary use would be replaced. Give e.g. 0.03."
            )


class Codebook(nn.Module, ABC):
    """K code vectors of width D.

    Attributes:
        vectors: (K, D).
        counts: (K,), moving average of the tokens of each code a step, over all ranks. It starts
            at 1, so that a code which is never used keeps its place (see `EmaCodebook`).

    Args:
        num_codes: K.
        width: D.
        distance: `euclidean`, or `cosine`: tokens and codes at unit length.
        liveliness: start and revival.

    Raises:
        ValueError: if K is below 2 or the distance is unknown.
    """

    vectors: Tensor
    counts: Tensor
    started: Tensor

    def __init__(
        self,
        num_codes: int,
        width: int,
        distance: Distance = "euclidean",
        liveliness: Liveliness | None = None,
    ) -> None:
        super().__init__()
        check_choice("the codebook's distance", distance, Distance)
        if num_codes < 2:
            raise ValueError(f"a codebook of {num_codes} codes says nothing: give at least 2.")
        self.num_codes = num_codes
        self.width = width
        self.distance: Distance = distance
        self.liveliness = liveliness or Liveliness()
        self.register_buffer("counts", torch.ones(num_codes, dtype=torch.float32))
        self.register_buffer("started", torch.tensor(self.liveliness.start == "random"))
        self._known_started = False

    def forward(self, codes: Tensor) -> Tensor:
        """The vectors of codes of any shape, (..., D)."""
        return F.embedding(codes, self.table())

    def table(self) -> Tensor:
        """All code vectors as they are compared and handed out, (K, D)."""
        return F.normalize(self.vectors, dim=1) if self.distance == "cosine" else self.vectors

    def ready(self, tokens: Tensor) -> Tensor:
        """Tokens as they are compared: at unit length for `cosine`."""
        return F.normalize(tokens, dim=1) if self.distance == "cosine" else tokens

    def nearest(self, tokens: Tensor) -> Tensor:
        """The nearest code of every ready token, (N,)."""
        return nearest_codes(tokens, self.table(), self.distance)

    @torch.no_grad()
    def begin(self, tokens: Tensor) -> None:
        """Take the start from the first training batch, unless that has been done.

        The device is asked once after building or loading, not in every step.

        Raises:
            ValueError: if the first tokens are no numbers.
        """
        if not self._known_started:
            if not bool(self.started):
                check_finite(tokens)
                rounds = KMEANS_ROUNDS if self.liveliness.start == "kmeans" else 0
                vectors, counts = kmeans(tokens, self.num_codes, self.distance, rounds)
                self.put(slice(None), vectors, counts.clamp(min=1))
                self.started.fill_(True)
            self._known_started = True

    @torch.no_grad()
    def observe(self, tokens: Tensor, codes: Tensor) -> Tensor:
        """Learn from a batch after it was looked up, and revive the dead.

        Args:
            tokens: ready tokens, (N, D).
            codes: their codes, (N,).

        Returns:
            Scalar: how many codes were replaced.
        """
        sums, counts = sum_by_code(tokens, codes, self.num_codes)
        sum_over_ranks(sums, counts)
        self.counts.lerp_(counts, 1 - self.liveliness.decay)
        self.follow(sums)
        if self.liveliness.revive_below == 0:
            return counts.new_zeros(())
        return self._revive(tokens)

    @abstractmethod
    def follow(self, sums: Tensor) -> None:
        """Move the vectors towards the batch's sums by code, (K, D); `counts` is up to date."""

    @abstractmethod
    def put(self, places: Tensor | slice, vectors: Tensor, counts: Tensor) -> None:
        """Set some codes, as if they had had `counts` tokens at `vectors` in every step."""

    @abstractmethod
    def losses(self, vectors: Tensor, tokens: Tensor) -> dict[str, Tensor]:
        """What the codebook itself wants minimised, by name."""

    def _revive(self, tokens: Tensor) -> Tensor:
        first, total = rows_of_all(tokens)
        fair = total.to(tokens.dtype) / self.num_codes  # each code's, if all were used alike
        fewest = self.counts.topk(max(1, self.num_codes // REVIVED_AT_ONCE), largest=False)  # (M,)
        draws = torch.rand(len(fewest.indices), dtype=torch.float64, device=tokens.device)
        picks = (draws * total).long()
        picks, places = first_rank_decides(torch.stack([picks, fewest.indices]))  # (M,), (M,)
        dead = self.counts[places] < self.liveliness.revive_below * fair  # (M,)
        fresh = pick_rows(tokens, picks, first)  # (M, D)
        vectors = torch.where(dead.unsqueeze(1), fresh, self.vectors[places])
        # A fresh code gets an ordinary code's inertia: it has time to prove itself.
        counts = torch.where(dead, fair, self.counts[places])
        self.put(places, vectors, counts)
        return dead.sum()

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._known_started = False


class EmaCodebook(Codebook):
    """Codes as moving averages of their tokens: N <- d N + (1 - d) n, m <- d m + (1 - d) sum.

    A code is m / N', with N' = (N + e) / (sum N + K e) * sum N (Laplace smoothing). Both averages
    start where their quotient is the first code: N = 1, m = code. Other starts in circulation throw
    unused codes far away (N = 0) or to the origin (both 0).

    Args:
        num_codes: K.
        width: D.
        distance: `euclidean` or `cosine`.
        liveliness: start, decay and revival.
        epsilon: e.

    Source:
        van den Oord et al. 2017, arXiv:1711.00937, appendix A.1; the smoothing is not in the paper
        but in its authors' code, the start is that of lucidrains' vector-quantize-pytorch.
    """

    sums: Tensor

    def __init__(
        self,
        num_codes: int,
        width: int,
        distance: Distance = "euclidean",
        liveliness: Liveliness | None = None,
        epsilon: float = 1e-5,
    ) -> None:
        super().__init__(num_codes, width, distance, liveliness)
        self.epsilon = epsilon
        vectors = _random_vectors(num_codes, width, distance)
        self.register_buffer("vectors", vectors)
        self.register_buffer("sums", vectors.clone())

    def table(self) -> Tensor:
        """All code vectors; they are kept at unit length for `cosine`."""
        return self.vectors

    def follow(self, sums: Tensor) -> None:
        """Average the sums and divide by the smoothed counts."""
        self.sums.lerp_(sums, 1 - self.liveliness.decay)
        total = self.counts.sum()
        share = (self.counts + self.epsilon) / (total + self.num_codes * self.epsilon)  # (K,)
        torch.div(self.sums, (share * total).unsqueeze(1), out=self.vectors)
        if self.distance == "cosine":
            F.normalize(self.vectors, dim=1, out=self.vectors)

    def put(self, places: Tensor | slice, vectors: Tensor, counts: Tensor) -> None:
        """Set the codes and both of their averages."""
        self.vectors[places] = vectors
        self.sums[places] = vectors * counts.unsqueeze(1)
        self.counts[places] = counts

    def losses(self, vectors: Tensor, tokens: Tensor) -> dict[str, Tensor]:
        """None: averages need no gradient."""
        return {}


class LearnedCodebook(Codebook):
    """Codes as parameters, drawn to their tokens by a loss.

    Args:
        num_codes: K.
        width: D.
        distance: `euclidean` or `cosine`.
        liveliness: start and revival. Its decay only says how soon a code counts as dead.
        weight: of the codebook loss, 1 in the paper.

    Source:
        van den Oord et al. 2017, arXiv:1711.00937, eq. 3, second term.
    """

    def __init__(
        self,
        num_codes: int,
        width: int,
        distance: Distance = "euclidean",
        liveliness: Liveliness | None = None,
        weight: float = 1.0,
    ) -> None:
        super().__init__(num_codes, width, distance, liveliness)
        self.weight = weight
        self.vectors = nn.Parameter(_random_vectors(num_codes, width, distance))

    def follow(self, sums: Tensor) -> None:
        """Nothing: the optimizer moves the codes."""

    def put(self, places: Tensor | slice, vectors: Tensor, counts: Tensor) -> None:
        """Set the codes; the optimizer keeps what it remembers of those that stood there."""
        self.vectors[places] = vectors
        self.counts[places] = counts

    def losses(self, vectors: Tensor, tokens: Tensor) -> dict[str, Tensor]:
        """Mean squared distance of each code to the tokens it stands for."""
        return {"codebook": self.weight * F.mse_loss(vectors, tokens.detach())}


def _random_vectors(num_codes: int, width: int, distance: Distance) -> Tensor:
    """Normal, of length about 1; exactly 1 for `cosine`."""
    vectors = torch.randn(num_codes, width, dtype=torch.float32) * width**-0.5
    return F.normalize(vectors, dim=1) if distance == "cosine" else vectors
