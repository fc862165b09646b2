"""Vector quantization against an independent float64 re-statement, code by code."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lit_eve.models.tokenizers.codebook import Codebook, EmaCodebook, LearnedCodebook, Liveliness
from lit_eve.models.tokenizers.nearest import nearest_codes
from lit_eve.models.tokenizers.vector import VectorQuantizer

FIXED = Liveliness(start="random")


def latents(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def tokens_of(latent: Tensor) -> list[Tensor]:
    """Every cell's vector in double precision, images in order, row by row."""
    images, _, rows, columns = latent.shape
    return [
        latent[image, :, row, column].double()
        for image in range(images)
        for row in range(rows)
        for column in range(columns)
    ]


class PlainEma:
    """The moving averages of van den Oord et al. 2017, A.1, one code at a time."""

    def __init__(self, table: Tensor, decay: float = 0.99, epsilon: float = 1e-5) -> None:
        self.codes = [row.double().clone() for row in table]
        self.sums = [row.double().clone() for row in table]
        self.counts = [1.0] * len(table)
        self.decay, self.epsilon = decay, epsilon

    def nearest(self, token: Tensor) -> int:
        distances = [float((token - code).square().sum()) for code in self.codes]
        return distances.index(min(distances))

    def step(self, tokens: list[Tensor]) -> list[int]:
        picked = [self.nearest(token) for token in tokens]
        for code in range(len(self.codes)):
            mine = [token for token, pick in zip(tokens, picked, strict=True) if pick == code]
            total = sum(mine, torch.zeros_like(self.codes[0]))
            self.counts[code] = self.decay * self.counts[code] + (1 - self.decay) * len(mine)
            self.sums[code] = self.decay * self.sums[code] + (1 - self.decay) * total
        everything, number = sum(self.counts), len(self.counts)
        for code in range(number):
            share = (self.counts[code] + self.epsilon) / (everything + number * self.epsilon)
            self.codes[code] = self.sums[code] / (share * everything)
        return picked


@pytest.fixture
def quantizer() -> VectorQuantizer:
    torch.manual_seed(0)
    return VectorQuantizer(EmaCodebook(12, 4, liveliness=FIXED))


def test_three_steps_equal_the_plain_moving_averages(quantizer: VectorQuantizer) -> None:
    plain = PlainEma(quantizer.codebook.vectors)
    for step in range(3):
        latent = latents(2, 4, 3, 5, seed=step)
        before = torch.stack(plain.codes)
        out = quantizer(latent)
        picked = plain.step(tokens_of(latent))
        assert out.codes is not None
        assert out.codes.flatten().tolist() == picked
        # The loss belongs to the codes that were looked up, not to those they became.
        expected = torch.stack(tokens_of(latent)) - before[picked]
        assert out.losses["commitment"].item() == pytest.approx(
            0.25 * expected.square().mean().item(), rel=1e-6
        )
        # Measured: 1.2e-7 at most.
        torch.testing.assert_close(
            quantizer.codebook.vectors.double(), torch.stack(plain.codes), atol=1e-6, rtol=1e-6
        )


def test_a_code_that_is_never_used_stays_where_it_is(quantizer: VectorQuantizer) -> None:
    far = torch.full((4,), 50.0)
    with torch.no_grad():
        quantizer.codebook.put(torch.tensor([3]), far[None], torch.ones(1))
    for step in range(200):
        quantizer(latents(1, 4, 4, 4, seed=step))
    # e / (N + e) of it is left after 200 steps, with N = 0.99 ** 200: 0.99993.
    torch.testing.assert_close(quantizer.codebook.vectors[3], far, rtol=2e-4, atol=0)


def test_evaluation_changes_nothing(quantizer: VectorQuantizer) -> None:
    quantizer.eval()
    before = {name: tensor.clone() for name, tensor in quantizer.state_dict().items()}
    quantizer(latents(2, 4, 3, 3))
    assert all(torch.equal(before[name], now) for name, now in quantizer.state_dict().items())


def test_straight_through_values_are_the_codes_to_the_bit(quantizer: VectorQuantizer) -> None:
    latent = (latents(1, 4, 2, 3) * 1e3).requires_grad_()
    table = quantizer.codebook.vectors.clone()
    out = quantizer(latent)
    assert out.codes is not None
    assert torch.equal(out.latent.detach(), table[out.codes].permute(0, 3, 1, 2))
    probe = latents(1, 4, 2, 3, seed=9)
    (out.latent * probe).sum().backward()
    assert latent.grad is not None
    assert torch.equal(latent.grad, probe)


def test_the_commitment_gradient_is_two_beta_times_the_mean_difference(
    quantizer: VectorQuantizer,
) -> None:
    latent = latents(1, 4, 2, 3).requires_grad_()
    out = quantizer(latent)
    difference = latent.detach() - out.latent.detach()
    (gradient,) = torch.autograd.grad(out.losses["commitment"], latent)
    torch.testing.assert_close(gradient, 2 * 0.25 * difference / latent.numel())


def test_the_rotation_trick_is_the_matrix_of_the_paper() -> None:
    torch.manual_seed(0)
    quantizer = VectorQuantizer(EmaCodebook(6, 5, liveliness=FIXED), gradient="rotation")
    table = quantizer.codebook.vectors.clone().double()
    latent = latents(1, 5, 1, 4).requires_grad_()
    probe = latents(1, 5, 1, 4, seed=1)
    out = quantizer(latent)
    assert out.codes is not None
    (gradient,) = torch.autograd.grad((out.latent * probe).sum(), latent)
    for cell, code in enumerate(out.codes.flatten().tolist()):
        e, q = latent[0, :, 0, cell].detach().double(), table[code]
        e_unit, q_unit = e / e.norm(), q / q.norm()
        r = (e_unit + q_unit) / (e_unit + q_unit).norm()
        matrix = torch.eye(5).double() - 2 * torch.outer(r, r) + 2 * torch.outer(q_unit, e_unit)
        matrix *= q.norm() / e.norm()
        torch.testing.assert_close(matrix @ e, q)  # it does lead from e to q
        expected = matrix.T @ probe[0, :, 0, cell].double()
        torch.testing.assert_close(gradient[0, :, 0, cell].double(), expected, rtol=1e-5, atol=1e-6)
        assert torch.equal(out.latent[0, :, 0, cell].detach(), q.float())


def test_cosine_compares_and_hands_out_unit_vectors() -> None:
    torch.manual_seed(0)
    quantizer = VectorQuantizer(EmaCodebook(8, 4, "cosine", FIXED))
    table = quantizer.codebook.vectors.clone()
    latent = latents(2, 4, 2, 2) * 7
    out = quantizer(latent)
    units = torch.stack([token / token.norm() for token in tokens_of(latent)])
    similarity = units @ table.double().T
    assert out.codes is not None
    assert out.codes.flatten().tolist() == similarity.argmax(1).tolist()
    difference = units - table[out.codes.flatten()].double()
    assert out.losses["commitment"].item() == pytest.approx(
        0.25 * difference.square().mean().item()
    )
    # The codes moved and are of unit length again.
    assert not torch.equal(quantizer.codebook.vectors, table)
    lengths = quantizer.codebook.vectors.norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones(8))


def test_a_learned_codebook_is_pulled_by_its_own_loss_only() -> None:
    torch.manual_seed(0)
    quantizer = VectorQuantizer(LearnedCodebook(6, 3, liveliness=FIXED, weight=2.0), 0.25)
    latent = latents(1, 3, 2, 2).requires_grad_()
    out = quantizer(latent)
    assert out.codes is not None
    error = out.latent.detach() - latent.detach()
    assert out.losses["codebook"].item() == pytest.approx(2.0 * error.square().mean().item())
    sum(out.losses.values(), out.latent.sum()).backward()
    gradient = quantizer.codebook.get_parameter("vectors").grad
    assert gradient is not None
    for code in range(6):
        mine = (out.codes[0] == code).nonzero()
        pull = torch.zeros(3)
        for row, column in mine.tolist():
            pull += 2 * 2.0 * error[0, :, row, column] / latent.numel()
        torch.testing.assert_close(gradient[code], pull)


@pytest.mark.parametrize("book", [EmaCodebook, LearnedCodebook])
def test_codes_start_at_the_clusters_of_the_first_batch(book: type[Codebook]) -> None:
    centres = torch.tensor([[-9.0, 0.0], [9.0, 0.0], [0.0, 9.0]])
    torch.manual_seed(2)
    tokens = centres.repeat(40, 1) + 0.1 * torch.randn(120, 2)
    codebook = book(3, 2)
    codebook.begin(tokens)
    found = codebook.vectors.detach()
    nearest = torch.cdist(centres, found).min(1).values
    assert float(nearest.max()) < 0.1
    assert codebook.counts.tolist() == [40.0, 40.0, 40.0]
    codebook.begin(tokens + 100)  # only once
    assert torch.equal(codebook.vectors.detach(), found)


def test_a_start_from_data_takes_every_token_at_most_once() -> None:
    tokens = latents(64, 4)
    codebook = EmaCodebook(48, 4, liveliness=Liveliness(start="data"))
    codebook.begin(tokens)
    matches = (codebook.vectors[:, None] == tokens[None]).all(-1)  # (48, 64)
    assert matches.any(1).all()
    assert int(matches.sum(0).max()) == 1


def test_a_first_batch_smaller_than_the_codebook_is_enough() -> None:
    codebook = EmaCodebook(32, 4)
    codebook.begin(latents(5, 4))
    assert codebook.vectors.isfinite().all()
    codebook.observe(latents(5, 4), codebook.nearest(latents(5, 4)))
    assert codebook.vectors.isfinite().all()
    # An empty cluster keeps its place: it is not thrown to the origin by the next average.
    assert float(codebook.vectors.norm(dim=1).min()) > 0.1


def test_dead_codes_are_revived_at_tokens_with_an_ordinary_count() -> None:
    torch.manual_seed(0)
    lively = Liveliness(start="random", decay=0.5, revive_below=0.2)
    codebook = EmaCodebook(128, 2, liveliness=lively)
    with torch.no_grad():
        codebook.put(slice(None), torch.full((128, 2), 1e3), torch.ones(128))
    tokens = latents(256, 2)
    replaced = int(codebook.observe(tokens, codebook.nearest(tokens)))
    # Fair use is 2 tokens; the unused have 0.5 left, above 0.4; in the next step 0.25, below it.
    assert replaced == 0
    replaced = int(codebook.observe(tokens, codebook.nearest(tokens)))
    assert replaced == 2  # one in 64 at once
    fresh = (codebook.vectors.abs() < 100).all(1)
    fresh[0] = False  # of the equal codes the first had all the tokens
    assert int(fresh.sum()) == 2
    assert all((tokens == code).all(1).any() for code in codebook.vectors[fresh])
    assert codebook.counts[fresh].tolist() == [2.0, 2.0]
    torch.testing.assert_close(codebook.get_buffer("sums")[fresh], codebook.vectors[fresh] * 2)


def test_revival_ends_a_collapse() -> None:
    def used_after(revive_below: float) -> int:
        torch.manual_seed(0)
        lively = Liveliness(start="random", decay=0.9, revive_below=revive_below)
        quantizer = VectorQuantizer(EmaCodebook(64, 8, liveliness=lively))
        quantizer.codebook.vectors.mul_(0.01)
        for step in range(150):
            latent = 5 + latents(4, 8, 8, 8, seed=step)
            codes = quantizer(latent).codes
        assert codes is not None
        return len(codes.unique())

    assert used_after(0.0) <= 4
    assert used_after(0.05) >= 48


def test_nearest_codes_equal_the_whole_distance_matrix_whatever_the_chunk(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tokens, table = latents(301, 16), latents(384, 16, seed=1)
    distances = torch.cdist(tokens.double(), table.double())
    for scores, codes in ((1, 384), (384 * 7, 384), (2**22, 2**13), (64 * 5, 64), (1000, 100)):
        monkeypatch.setattr("lit_eve.models.tokenizers.nearest.MAX_SCORES", scores)
        monkeypatch.setattr("lit_eve.models.tokenizers.nearest.MAX_CODES", codes)
        assert torch.equal(nearest_codes(tokens, table, "euclidean"), distances.argmin(1))


@pytest.mark.parametrize("block", [2**13, 128])
def test_of_equal_codes_the_first_is_taken(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lit_eve.models.tokenizers.nearest.MAX_CODES", block)
    table = latents(256, 4).repeat(2, 1)
    assert torch.equal(nearest_codes(table[256:], table, "euclidean"), torch.arange(256))


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_codes_under_autocast_are_those_of_full_precision(precision: torch.dtype) -> None:
    torch.manual_seed(0)
    quantizer = VectorQuantizer(EmaCodebook(512, 32, liveliness=FIXED)).eval()
    latent = latents(4, 32, 8, 8)
    exact = quantizer(latent).codes
    with torch.autocast("cpu", precision):
        assert torch.equal(quantizer(latent).codes, exact)  # half-precision products flip ~1 %


def test_a_module_cast_to_half_keeps_its_codebook_in_float32() -> None:
    quantizer = VectorQuantizer(EmaCodebook(8, 4, liveliness=FIXED))
    before = quantizer.codebook.vectors.clone()
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), quantizer).to(torch.bfloat16)
    assert next(model[0].parameters()).dtype == torch.bfloat16
    assert torch.equal(quantizer.codebook.vectors, before)
    out = quantizer(latents(1, 4, 2, 2).to(torch.bfloat16))
    assert out.latent.dtype == torch.bfloat16
    assert quantizer.codebook.counts.dtype == torch.float32
    assert quantizer.double().codebook.counts.dtype == torch.float64


def test_a_codebook_loaded_from_a_checkpoint_does_not_start_again() -> None:
    first = VectorQuantizer(EmaCodebook(4, 2))
    first(latents(2, 2, 4, 4))
    second = VectorQuantizer(EmaCodebook(4, 2))
    second.load_state_dict(first.state_dict())
    first(latents(2, 2, 4, 4, seed=1) + 100)
    second(latents(2, 2, 4, 4, seed=1) + 100)
    assert torch.equal(first.codebook.vectors, second.codebook.vectors)


def test_a_training_step_stops_at_every_impossible_option() -> None:
    with pytest.raises(ValueError, match=r"decay of 1.*give 0 to 1"):
        Liveliness(decay=1)
    with pytest.raises(ValueError, match=r"revive_below is a share.*Give e.g. 0.03"):
        Liveliness(revive_below=2)
    with pytest.raises(ValueError, match=r"codebook of 1 codes.*at least 2"):
        EmaCodebook(1, 4)


def test_statistics_are_lengths_and_the_squared_distance() -> None:
    torch.manual_seed(0)
    quantizer = VectorQuantizer(EmaCodebook(6, 3, liveliness=FIXED))
    latent = latents(1, 3, 2, 2)
    out = quantizer(latent)
    cells = out.latent.detach().movedim(1, -1).flatten(0, 2)
    tokens = latent.movedim(1, -1).flatten(0, 2)
    distance = (cells - tokens).square().sum(1).mean()
    statistics = {name: value.item() for name, value in out.statistics.items()}
    assert statistics["quantization_error"] == pytest.approx(distance.item(), rel=1e-6)
    assert statistics["latent_norm"] == pytest.approx(math.sqrt(tokens.square().sum(1).mean()))
    assert statistics["code_norm"] == pytest.approx(math.sqrt(cells.square().sum(1).mean()))
    assert statistics["replaced_codes"] == 0
