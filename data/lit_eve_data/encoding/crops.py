"""Squares cut out of pictures: at random to train on, from the middle to be judged.

Shapes: H, W pixels, E edge of the square.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from lit_eve_data.disk.records import Pixels
from lit_eve_data.encoding.images import SizePolicy, resize


@dataclass(frozen=True)
class Crop:
    """A square of `edge` pixels.

    In training a random square of the picture's shorter edge is scaled to `edge` times a factor
    drawn from `zoom`, though never enlarged beyond `edge`, and a random square of it is kept. For
    evaluation the shorter edge becomes `edge`, and the middle is kept.

    Args:
        edge: E.
        zoom: least and most, 1 or more.
        flip: mirror every other picture in training, drawn as well.

    Source:
        Ramesh et al. 2021, arXiv:2102.12092, listing 1, with zoom (9/8, 12/8) and flip. Theirs is
        scaled by the mean of areas, ours by antialiased cubics.
    """

    edge: int
    zoom: tuple[float, float] = (1.0, 1.0)
    flip: bool = False

    def target(self, height: int, width: int, cell: int) -> tuple[int, int]:
        """Height and width of the result."""
        return self.edge, self.edge

    def cut(self, pixels: Pixels, random: Random | None) -> Pixels:
        """The crop of a picture, (H, W, 3) -> (E, E, 3); its middle if there is no `random`."""
        if random is None:
            return self._middle(pixels)
        shorter = min(pixels.shape[:2])
        low, high = (max(self.edge, min(shorter, round(self.edge * zoom))) for zoom in self.zoom)
        scaled_edge = random.randint(low, high)
        square = _random_square(pixels, shorter, random)
        cut = _random_square(resize(square, scaled_edge, scaled_edge), self.edge, random)
        return cut[:, ::-1] if self.flip and random.random() < 0.5 else cut

    def _middle(self, pixels: Pixels) -> Pixels:
        scale = self.edge / min(pixels.shape[:2])
        height, width = (max(self.edge, round(edge * scale)) for edge in pixels.shape[:2])
        y, x = (height - self.edge) // 2, (width - self.edge) // 2
        return resize(pixels, height, width)[y : y + self.edge, x : x + self.edge]


def framed(
    pixels: Pixels, policy: SizePolicy | Crop, cell: int, random: Random | None = None
) -> Pixels:
    """A picture at the size a policy gives it, (H, W, 3).

    Args:
        pixels: the picture, of any size.
        policy: sizes, or crops.
        cell: sides become multiples of this many pixels.
        random: where a crop is cut; None for the middle.
    """
    if isinstance(policy, Crop):
        return policy.cut(pixels, random)
    return resize(pixels, *policy.target(pixels.shape[0], pixels.shape[1], cell))


def _random_square(pixels: Pixels, edge: int, random: Random) -> Pixels:
    y, x = (random.randint(0, side - edge) for side in pixels.shape[:2])
    return pixels[y : y + edge, x : x + edge]
