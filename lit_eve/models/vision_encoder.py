"""Hugging Face vision encoders over the images of a batch: what encoder-free models leave out.

Shapes: I images, C channels, N side of the encoder's input, P = (N / patch)^2 cells, D width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers import (
    AutoModel,
    ImageProcessingMixin,
    PretrainedConfig,
    PreTrainedModel,
    ViTConfig,
    ViTModel,
)

from lit_eve.models.resampling import fitted_grids, onto_squares, unpack
from lit_eve.models.teacher import Normalisation
from lit_eve_data.batches import ImageLayout, PackedImages


class VisionEncoder(nn.Module, ABC):
    """A vision encoder that is part of the model: trained, frozen and saved like the others.

    Every image keeps its shape: its longer side becomes the encoder's own, the rest of the square
    is mean colour, as LLaVA-1.5 does.

    Args:
        side: N, of the square that the encoder takes.
        patch: side of a cell in pixels.
        own: how the encoder wants its pixels.
        given: how the pixels of the batches are normalised.

    Source:
        Liu et al. 2023, arXiv:2310.03744, section 3.3 and appendix (padding to a square).
    """

    factor: Tensor
    offset: Tensor

    def __init__(self, side: int, patch: int, own: Normalisation, given: Normalisation) -> None:
        super().__init__()
        self.side, self.patch = side, patch
        std = torch.tensor(own.std)
        # given -> [0, 1] -> own, in one multiplication and addition
        self.register_buffer("factor", torch.tensor(given.std) / std)  # (C,)
        self.register_buffer("offset", (torch.tensor(given.mean) - torch.tensor(own.mean)) / std)

    @property
    @abstractmethod
    def config(self) -> PretrainedConfig:
        """Settings that `shaped_like` rebuilds the encoder from."""

    @property
    @abstractmethod
    def width(self) -> int:
        """D, the width of the features."""

    @property
    @abstractmethod
    def num_states(self) -> int:
        """Sets of features that `encode` gives of every image."""

    @abstractmethod
    def encode(self, pixels: Tensor) -> list[Tensor]:
        """Sets of features, (I, P, D) each.

        Args:
            pixels: (I, C, N, N), normalised as the encoder wants them.
        """

    @property
    def cells(self) -> int:
        """P, the number of features of every image in a set."""
        return (self.side // self.patch) ** 2

    def forward(self, images: PackedImages, layout: ImageLayout) -> list[Tensor]:
        """Sets of features, (I, P, D) each; cells row-major, nothing but cells."""
        return self.encode(self._squares(images, layout))

    def _squares(self, images: PackedImages, layout: ImageLayout) -> Tensor:
        """The batch's images as the encoder wants them, (I, C, N, N)."""
        shape = (1, -1, 1, 1)
        pixels = unpack(images, layout) * self.factor.view(shape) + self.offset.view(shape)
        sizes = [(rows * layout.cell, columns * layout.cell) for rows, columns in images.grids]
        grids = fitted_grids(images.grids, self.side // self.patch)
        targets = [(rows * self.patch, columns * self.patch) for rows, columns in grids]
        return onto_squares(pixels, sizes, targets, self.side, self.patch)


class VitEncoder(VisionEncoder):
    """A vision transformer: CLIP's, SigLIP's, DINOv2's, ViT or the like.

    Args:
        model: takes `pixel_values` of one square size and returns hidden states of
            [class token and registers, ] cells row-major.
        layers: hidden states to give: 0 is the embedding, -1 the last layer's.
        own: how the encoder wants its pixels.
        given: how the pixels of the batches are normalised.

    Raises:
        ValueError: if the model has no square grid of patches, or no such layer.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        layers: Sequence[int],
        own: Normalisation,
        given: Normalisation,
    ) -> None:
        patch, side = _square_input(model.config)
        super().__init__(side, patch, own, given)
        self.model = model
        self.layers = tuple(layers)
        refuse_outside(layers, model.config.num_hidden_layers, "the embedding")

    @classmethod
    def pretrained(cls, name_or_path: str, layers: Sequence[int], given: Normalisation) -> Self:
        """A CLIP, SigLIP, DINOv2, ViT or the like with its trained weights.

        Args:
            name_or_path: hub name or folder, with its `preprocessor_config.json`.
            layers: see the class.
            given: see the class.

        Raises:
            ValueError: if it does not say how it wants its pixels.
        """
        own = normalisation_of(name_or_path, preprocessor_of(name_or_path))
        model = AutoModel.from_pretrained(
            name_or_path, dtype=torch.float32, attn_implementation="sdpa"
        )
        return cls(_seeing(model), layers, own, given)

    @classmethod
    def shaped_like(
        cls, config: PretrainedConfig, layers: Sequence[int], given: Normalisation
    ) -> Self:
        """An encoder in the shape of a pretrained one; weights and pixel scale come with a file.

        Args:
            config: the whole model's, or that of its half that sees.
            layers: see the class.
            given: see the class.
        """
        model = AutoModel.from_config(  # type: ignore[no-untyped-call]
            config, attn_implementation="sdpa"
        )
        return cls(_seeing(model), layers, given, given)

    @classmethod
    def random(cls, config: ViTConfig, layers: Sequence[int], given: Normalisation) -> Self:
        """A vision transformer with random weights.

        Args:
            config: its shape.
            layers: see the class.
            given: see the class.
        """
        return cls(ViTModel(config, add_pooling_layer=False), layers, given, given)

    @property
    def config(self) -> PretrainedConfig:
        """See `VisionEncoder`."""
        settings: PretrainedConfig = self.model.config
        return settings

    @property
    def width(self) -> int:
        """See `VisionEncoder`."""
        return int(self.model.config.hidden_size)

    @property
    def num_states(self) -> int:
        """One of every chosen layer."""
        return len(self.layers)

    def encode(self, pixels: Tensor) -> list[Tensor]:
        """Those of every chosen layer; class token and registers are left out."""
        output = self.model(pixel_values=pixels.to(self.model.dtype), output_hidden_states=True)
        return [output.hidden_states[layer][:, -self.cells :] for layer in self.layers]


def refuse_outside(layers: Sequence[int], depth: int, first: str) -> None:
    """Raise ValueError unless an encoder of that depth has all those hidden states.

    Args:
        layers: numbers of hidden states.
        depth: number of layers.
        first: what hidden state 0 is, in words.
    """
    outside = [layer for layer in layers if not -depth - 1 <= layer <= depth]
    if outside or not layers:
        raise ValueError(
            f"the vision encoder has no hidden states {outside}: it has {depth} layers. "
            f"Choose from {-depth - 1} to {depth}; 0 is {first}, -1 the last layer's."
        )


def preprocessor_of(name_or_path: str) -> dict[str, Any]:
    """What a pretrained model says of how it wants its pictures."""
    settings: dict[str, Any] = ImageProcessingMixin.get_image_processor_dict(name_or_path)[0]
    return settings


def normalisation_of(name_or_path: str, settings: Mapping[str, Any]) -> Normalisation:
    """How a pretrained model wants its pixels, by its preprocessor.

    Raises:
        ValueError: if that is not said.
    """
    if "image_mean" not in settings or "image_std" not in settings:
        raise ValueError(
            f"the preprocessor of {name_or_path} names no image_mean and image_std, without "
            "which the encoder would see wrong colours. Add both to its "
            "preprocessor_config.json."
        )
    return Normalisation(tuple(settings["image_mean"]), tuple(settings["image_std"]))


def _seeing(model: Any) -> PreTrainedModel:
    """Of a model of image and text only the half that sees."""
    seeing: PreTrainedModel = getattr(model, "vision_model", model)
    return seeing


def _square_input(config: Any) -> tuple[int, int]:
    """Sides of the encoder's patch and of its input."""
    patch, side = getattr(config, "patch_size", None), getattr(config, "image_size", None)
    if not isinstance(patch, int) or not isinstance(side, int) or side % patch:
        raise ValueError(
            f"the vision encoder has patches of {patch} on images of {side}: a square image of "
            "whole square patches is needed to know how many features it gives. Choose a CLIP, "
            "SigLIP, DINOv2 or ViT."
        )
    return patch, side
