"""A frozen vision encoder whose features the decoder's hidden states should explain.

Shapes: I images, C channels, N side of the teacher's input, F cells over all images, D its width.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Self, cast

import torch
from torch import Tensor, nn
from transformers import AutoModel, ImageProcessingMixin, PreTrainedModel, ViTConfig, ViTModel

from lit_eve.models.resampling import cell_places, fitted_grids, onto_squares, unpack
from lit_eve_data.batches import ImageLayout, PackedImages


class TeacherFeatures(NamedTuple):
    """What a teacher sees in the images of a batch."""

    features: Tensor
    """(F, D): cells row-major, images in order, without margins."""
    grids: tuple[tuple[int, int], ...]
    """(rows, columns) of cells of every image."""


class Normalisation(NamedTuple):
    """Pixels in [0, 1] minus `mean`, over `std`, per channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


class Teacher:
    """A vision transformer of Transformers, frozen: never trained, saved or moved by its owner.

    It is no `nn.Module` on purpose: held by one, it appears neither among the parameters nor in
    a checkpoint, and no strategy wraps it. It follows the device of the images it is given.

    Every image is resized so that its longer side is the teacher's own, the other a whole number
    of the teacher's cells, and centred on a square of mean colour, as EVE's code does.

    Args:
        model: takes `pixel_values` of one square size and returns hidden states of
            [class token and registers, ] cells row-major.
        layer: hidden state to give: 0 is the embedding, -1 the last layer's, -2 the one before.
        own: how the teacher wants its pixels.
        layout: how the images of the batches are cut into patches.
        given: how the pixels of the batches are normalised.

    Raises:
        ValueError: if the model has no square grid of patches, or no such layer.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        layer: int,
        own: Normalisation,
        layout: ImageLayout,
        given: Normalisation,
    ) -> None:
        self.model = model.requires_grad_(False)
        self.model.eval()  # type: ignore[no-untyped-call]
        self.layer, self.layout = layer, layout
        self.patch, self.side = _square_input(model.config)
        depth = model.config.num_hidden_layers
        if not -depth - 1 <= layer <= depth:
            raise ValueError(
                f"the teacher has no hidden state {layer}: it has {depth} layers. "
                f"Choose from {-depth - 1} to {depth}; 0 is the embedding, -1 the last layer's."
            )
        # given -> [0, 1] -> own, in one multiplication and addition
        self._factor = torch.tensor(given.std) / torch.tensor(own.std)  # (C,)
        self._offset = (torch.tensor(given.mean) - torch.tensor(own.mean)) / torch.tensor(own.std)

    @classmethod
    def pretrained(
        cls, name_or_path: str, layer: int, layout: ImageLayout, given: Normalisation
    ) -> Self:
        """A CLIP, SigLIP, DINOv2, ViT or the like with its trained weights.

        Args:
            name_or_path: hub name or folder, with its `preprocessor_config.json`.
            layer: see the class.
            layout: see the class.
            given: see the class.

        Raises:
            ValueError: if it does not say how it wants its pixels.
        """
        model = AutoModel.from_pretrained(name_or_path)
        settings, _ = ImageProcessingMixin.get_image_processor_dict(name_or_path)
        if "image_mean" not in settings or "image_std" not in settings:
            raise ValueError(
                f"the preprocessor of {name_or_path} names no image_mean and image_std, without "
                "which the teacher would see wrong colours. Add both to its "
                "preprocessor_config.json."
            )
        own = Normalisation(tuple(settings["image_mean"]), tuple(settings["image_std"]))
        # Of a model of image and text only the half that sees.
        return cls(getattr(model, "vision_model", model), layer, own, layout, given)

    @classmethod
    def random(
        cls,
        config: ViTConfig,
        layer: int,
        layout: ImageLayout,
        given: Normalisation,
        seed: int = 0,
    ) -> Self:
        """A vision transformer with random weights: nothing to download, little to learn from.

        Args:
            config: its shape.
            layer: see the class.
            layout: see the class.
            given: see the class.
            seed: of its weights, which no checkpoint holds: a resumed run draws the same.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = ViTModel(config, add_pooling_layer=False)
        return cls(model, layer, given, layout, given)

    @property
    def width(self) -> int:
        """D, the width of the features."""
        return cast(int, self.model.config.hidden_size)

    @torch.no_grad()
    def __call__(self, images: PackedImages) -> TeacherFeatures:
        """Features of all images of a batch, in the order of `images.grids`."""
        device = images.patches.device
        if self.model.device != device:
            nn.Module.to(self.model, device)  # Transformers' own wrapper is not typed
        cells = self.side // self.patch
        grids = fitted_grids(images.grids, cells)
        if not grids:
            return TeacherFeatures(torch.zeros(0, self.width, device=device), grids)
        pixels = self._see(images, grids).to(self.model.dtype)  # (I, C, N, N)
        states = self.model(pixel_values=pixels, output_hidden_states=True).hidden_states
        square = states[self.layer][:, -(cells**2) :].flatten(0, 1)  # (I * cells * cells, D)
        places = cell_places(grids, (cells, cells), centred=True).to(device, non_blocking=True)
        return TeacherFeatures(square.index_select(0, places), grids)

    def _see(self, images: PackedImages, grids: tuple[tuple[int, int], ...]) -> Tensor:
        """The batch's images as the teacher wants them, (I, C, N, N)."""
        pixels = unpack(images, self.layout)  # (I, C, H, W)
        shape = (1, -1, 1, 1)
        factor = self._factor.to(pixels).view(shape)
        pixels = pixels * factor + self._offset.to(pixels).view(shape)
        sizes = [(rows * self.layout.cell, cols * self.layout.cell) for rows, cols in images.grids]
        targets = [(rows * self.patch, columns * self.patch) for rows, columns in grids]
        return onto_squares(pixels, sizes, targets, self.side, self.patch)


def _square_input(config: Any) -> tuple[int, int]:
    """Sides of the teacher's patch and of its input."""
    patch, side = getattr(config, "patch_size", None), getattr(config, "image_size", None)
    if not isinstance(patch, int) or not isinstance(side, int) or side % patch:
        raise ValueError(
            f"the teacher has patches of {patch} on images of {side}: a square image of whole "
            "square patches is needed to compare it cell by cell. Choose a CLIP, SigLIP, DINOv2 "
            "or ViT."
        )
    return patch, side
