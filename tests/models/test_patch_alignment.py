"""EVE's patch aligning layer against a plain restatement, image by image, in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_eve.models.patch_alignment import PatchAlignment, window_slots
from lit_eve_data.batches import ImageLayout, PackedBatch
from tests.models.packed import Sample, pack
from tests.models.recording import Recording

LAYOUT = ImageLayout(patch=2, pool=2, cls=True, row_end=True)
WIDTH = 6
SLOTS = 40


def image(rows: int, columns: int) -> Tensor:
    return torch.randn(3, rows * 4, columns * 4)


def batch(repeats: int = 1) -> PackedBatch:
    """Three images: one among text, two in one sample; and a sample of text only."""
    first = Sample([[1, 2], image(2, 4), [3]])
    second = Sample([image(4, 2), [4], image(3, 3), [5]])
    return pack([[first, Sample([[6, 7]])], [second]] * repeats, LAYOUT, SLOTS)


def layer(teacher_width: int = 5, every: int = 2) -> PatchAlignment:
    torch.manual_seed(0)
    made = PatchAlignment(WIDTH, 4, 8, teacher_width, heads=2, every=every).double()
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.5)
    return made


def states(of: PackedBatch, depth: int = 4) -> dict[int, Tensor]:
    shape = (*of.token_ids.shape, WIDTH)
    generator = torch.Generator().manual_seed(1)
    return {
        n: torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()
        for n in range(depth + 1)
    }


def plain(
    alignment: PatchAlignment,
    hidden: dict[int, Tensor],
    starts: list[tuple[int, int]],
    sizes: list[tuple[int, int]],
    targets: list[tuple[int, int]],
) -> Tensor:
    """Image by image, cell by cell; `starts` are (row, slot) of each image's `<CLS>`."""
    cells = []
    for (row, slot), (height, width), target in zip(starts, sizes, targets, strict=True):
        length = 1 + height * (width + 1)
        pooled = {}
        for number in alignment.layers:
            grid = hidden[number][row, slot + 1 : slot + length].view(height, width + 1, WIDTH)
            grid = grid[:, :-1].permute(2, 0, 1)
            pooled[number] = F.adaptive_avg_pool2d(grid, target).flatten(1).T
        for cell in range(target[0] * target[1]):
            projected = [
                projection(norm(pooled[number][cell]))
                for number, norm, projection in zip(
                    alignment.layers, alignment.norms, alignment.projections, strict=True
                )
            ]
            found = []
            for head in range(alignment.heads):
                part = slice(head * 4, head * 4 + 4)
                keys = torch.stack(projected[1:])[:, part]  # (L-1, K)
                scores = keys @ projected[0][part] * 8**-0.5
                found.append(scores.softmax(0) @ keys)
            last = pooled[alignment.layers[0]][cell]
            cells.append(alignment.residual(last) + alignment.output(torch.cat(found)))
    return torch.stack(cells)


SIZES = [(2, 4), (4, 2), (3, 3)]
STARTS = [(0, 2), (1, 0), (1, 14)]  # the second image has 1 + 4 * 3 tokens, then one of text


@pytest.mark.parametrize("targets", [SIZES, [(1, 2), (3, 2), (5, 2)]], ids=["same", "any ratio"])
def test_features_and_gradients_are_those_of_one_image_at_a_time(
    targets: list[tuple[int, int]],
) -> None:
    alignment, rows = layer(), batch()
    hidden = states(rows)
    got = alignment(hidden, rows, tuple(targets))
    wanted = plain(alignment, hidden, STARTS, SIZES, targets)
    torch.testing.assert_close(got, wanted)
    weights = torch.randn_like(wanted)
    leaves = [*alignment.parameters(), *(hidden[n] for n in alignment.layers)]
    torch.testing.assert_close(
        torch.autograd.grad((got * weights).sum(), leaves),
        torch.autograd.grad((wanted * weights).sum(), leaves),
    )


# As listed by the published code for these depths, reading every fourth.
@pytest.mark.parametrize(
    ("depth", "layers"), [(32, (32, 28, 24, 20, 16, 12, 8, 4, 0)), (22, (22, 18, 14, 10, 6, 2))]
)
def test_layers_are_read_from_the_last_downwards(depth: int, layers: tuple[int, ...]) -> None:
    assert PatchAlignment(4, depth, 4, 4, heads=1, every=4).layers == layers


def test_only_window_tokens_are_read() -> None:
    alignment, rows = layer(), batch()
    hidden = states(rows)
    features = alignment(hidden, rows, rows.images.grids)
    gradient = torch.autograd.grad(features.square().sum(), hidden[4])[0]
    read = gradient.abs().sum(2).flatten().nonzero().squeeze(1)
    assert read.tolist() == sorted(window_slots(rows).tolist())
    assert len(read) == 2 * 4 + 4 * 2 + 3 * 3


def test_a_batch_without_images_reaches_every_parameter() -> None:
    alignment = layer()
    rows = pack([[Sample([[1, 2, 3]])]], LAYOUT, 4)
    features = alignment(states(rows), rows, ())
    assert features.shape == (0, 5)
    torch.autograd.backward(features.sum())
    for name, parameter in alignment.named_parameters():
        assert parameter.grad is not None, name
        assert not parameter.grad.any(), name


def test_the_operations_do_not_grow_with_the_images() -> None:
    alignment = layer()
    counts = []
    for repeats in (1, 4):
        rows = batch(repeats)
        hidden, targets = states(rows), ((1, 2), (3, 2), (5, 2)) * repeats
        alignment.zero_grad()
        with Recording() as recorded:
            torch.autograd.backward(alignment(hidden, rows, targets).sum())
        counts.append(len(recorded.operations))
    assert counts[0] == counts[1]


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(ValueError, match="width 8 is not a multiple of its 3 heads"):
        PatchAlignment(4, 4, 8, 4, heads=3, every=1)


def test_a_step_over_all_layers_is_refused() -> None:
    with pytest.raises(ValueError, match="every at least 1 and at most 4"):
        PatchAlignment(4, 4, 8, 4, heads=2, every=5)
