"""A decoder that reads and writes text alone, run over the same packed rows as the others.

Shapes: E width.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from lit_eve.models.language_model import LanguageModel
from lit_eve.models.vision_language import Sight, VisionLanguageModel
from lit_eve_data.batches import ImageLayout, PackedImages

NO_LAYOUT = ImageLayout(patch=1, pool=1, cls=False, row_end=False)
"""Pictures are never cut: there are none."""


class TextModel(VisionLanguageModel):
    """A language model alone: it sees nothing.

    Args:
        language_model: the decoder.
    """

    def __init__(self, language_model: LanguageModel) -> None:
        super().__init__()
        self.language_model = language_model

    @property
    def layout(self) -> ImageLayout:
        """Of no picture."""
        return NO_LAYOUT

    @property
    def vision(self) -> Sequence[nn.Module]:
        """Nothing."""
        return ()

    def look(self, images: PackedImages) -> Sight:
        """No visual tokens, (0, E)."""
        return Sight(self.language_model.head_weight.new_zeros(0, self.language_model.width))

    def vision_flops(self, rows: int, columns: int) -> int:
        """None."""
        return 0
