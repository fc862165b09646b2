"""What each connector is, told by a property that only it has."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lit_eve.models.connectors.connector import Connector
from lit_eve.models.connectors.projections import (
    DepthBreadthConnector,
    LinearConnector,
    Merge,
    MlpConnector,
    PixelShuffleConnector,
)
from lit_eve.models.connectors.resamplers import (
    AbstractorConnector,
    PerceiverConnector,
    QFormerConnector,
)

IMAGES, CELLS, WIDTH, OUT = 3, 16, 8, 12


def features(seed: int = 0) -> Tensor:
    return torch.randn(IMAGES, CELLS, WIDTH, generator=torch.Generator().manual_seed(seed))


def every_connector() -> dict[str, Connector]:
    torch.manual_seed(1)
    return {
        "linear": LinearConnector(WIDTH, CELLS, OUT),
        "mlp": MlpConnector(WIDTH, CELLS, OUT),
        "pixel_shuffle": PixelShuffleConnector(WIDTH, CELLS, OUT, side=2),
        "q_former": QFormerConnector(WIDTH, OUT, queries=5, inner=8, depth=2, heads=2).eval(),
        "perceiver": PerceiverConnector(WIDTH, CELLS, OUT, queries=5, depth=2, heads=2),
        "c_abstractor": AbstractorConnector(WIDTH, CELLS, OUT, queries=4, inner=6, depth=1),
    }


@pytest.mark.parametrize("name", list(every_connector()))
def test_a_connector_gives_the_tokens_it_states_and_images_do_not_mix(name: str) -> None:
    connector = every_connector()[name]
    tokens = connector([features()])
    assert tokens.shape == (IMAGES, connector.num_tokens, OUT)
    alone = connector([features()[1:2]])
    torch.testing.assert_close(tokens[1:2], alone, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", list(every_connector()))
def test_a_connector_refuses_layers_it_would_ignore(name: str) -> None:
    with pytest.raises(ValueError, match=r"all but one would be ignored.*depth_breadth"):
        every_connector()[name]([features(), features(1)])


def test_pixel_shuffle_reads_each_square_row_by_row() -> None:
    connector = PixelShuffleConnector(1, CELLS, 4, side=2)
    connector.norm = nn.Identity()  # type: ignore[assignment]
    connector.project = nn.Identity()  # type: ignore[assignment]
    numbered = torch.arange(16.0).view(1, 16, 1)  # cell r, c of the grid is 4 r + c
    assert connector([numbered]).tolist() == [
        [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]
    ]


@pytest.mark.parametrize(
    ("merge", "tokens", "inner"), [("token", 32, 8), ("mean", 16, 8), ("channel", 16, 16)]
)
def test_depths_are_joined_as_the_word_says(merge: Merge, tokens: int, inner: int) -> None:
    connector = DepthBreadthConnector(WIDTH, CELLS, OUT, states=2, merge=merge)
    assert connector([features(), features(1)]).shape == (IMAGES, tokens, OUT)
    assert connector.project[0].in_features == inner
    one, other = features(), features(1)
    swapped = torch.equal(connector([one, other]), connector([other, one]))
    assert swapped == (merge == "mean")
    deeper = DepthBreadthConnector(WIDTH, CELLS, OUT, 2, merge, depth=3)
    assert [type(layer) for layer in deeper.project] == 2 * [nn.Linear, nn.GELU] + [nn.Linear]
    assert deeper([one, other]).shape == (IMAGES, tokens, OUT)


def test_queries_read_a_set_unless_places_are_learnt() -> None:
    order = torch.randperm(CELLS, generator=torch.Generator().manual_seed(2))
    seen, moved = features(), features()[:, order]
    for name, connector in every_connector().items():
        if name == "q_former":  # BLIP-2 leaves places to the encoder
            torch.testing.assert_close(connector([seen]), connector([moved]), atol=1e-6, rtol=1e-5)
        elif name in ("perceiver", "c_abstractor"):
            assert not torch.allclose(connector([seen]), connector([moved]), atol=1e-4)


def test_the_abstractor_keeps_what_is_near_together() -> None:
    connector = AbstractorConnector(WIDTH, 64, OUT, queries=16, inner=6, depth=1)
    for block in (*connector.before, *connector.after):
        block.excite = nn.Identity()  # it looks at the whole picture by design
    connector.after = nn.Sequential()
    seen = torch.randn(1, 64, WIDTH)
    changed = seen.clone()
    changed[0, 0] += 1  # the upper left cell of 8 x 8
    differs = (connector([seen]) - connector([changed])).abs().sum(2)[0] > 1e-6
    assert differs.view(4, 4).nonzero().tolist() == [[0, 0]]


@pytest.mark.parametrize(
    ("make", "advice"),
    [
        (lambda: PixelShuffleConnector(8, 16, 12, side=3), "a divisor of 4"),
        (lambda: AbstractorConnector(8, 15, 12, 4, 6, 1), "form no square grid"),
        (lambda: AbstractorConnector(8, 16, 12, 5, 6, 1), "form no square grid"),
    ],
)
def test_shapes_that_do_not_fit_are_named(make: object, advice: str) -> None:
    with pytest.raises(ValueError, match=advice):
        make()  # type: ignore[operator]
