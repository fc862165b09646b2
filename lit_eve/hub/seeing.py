"""The images of a batch of prompts between Transformers' tensors and the platform's.

Shapes: N samples, L slots of the longest, I images, M windows over all images, V visual tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lit_eve_data.batches import ImageLayout, PackedImages
from lit_eve_data.encoding.images import visual_source


def packed(
    pixels: Tensor | None, grids: Tensor | None, layout: ImageLayout, device: torch.device
) -> PackedImages:
    """The images of a batch as the models read them.

    Args:
        pixels: (M, S, C*P*P) windows of all images, or None if there are none.
        grids: (I, 2) int64, rows and columns of windows of every image, in order.
        layout: of the model.
        device: where the model is.

    Raises:
        ValueError: if there are windows without grids, or their numbers differ.
    """
    if pixels is None:
        pixels, grids = torch.zeros(0, layout.pool**2, 3 * layout.patch**2), None
    elif grids is None:
        raise ValueError(
            "pixel_values came without image_grids, which say how the windows form pictures. Pass "
            "everything that the processor gave."
        )
    sizes = () if grids is None else tuple((int(r), int(c)) for r, c in grids.tolist())
    counts = torch.tensor([rows * columns for rows, columns in sizes], dtype=torch.int64)
    if int(counts.sum()) != len(pixels):
        raise ValueError(
            f"image_grids speak of {int(counts.sum())} windows and pixel_values hold {len(pixels)}:"
            " pictures would be cut in the wrong places. Pass everything that the processor gave."
        )
    return PackedImages(
        patches=pixels,
        window_image=torch.arange(len(sizes)).repeat_interleave(counts),
        visual_source=torch.from_numpy(visual_source(sizes, layout)),
        grids=sizes,
    ).to(device)


def slots_of(ids: Tensor, images: PackedImages, image_token: int) -> Tensor:
    """Where the visual tokens go, (V,) int64: `row * L + slot` each.

    Args:
        ids: (N, L) int64.
        images: of all samples, in order.
        image_token: stands where a visual token goes.

    Raises:
        ValueError: if the places are not as many as the visual tokens.
    """
    slots = (ids == image_token).flatten().nonzero().squeeze(1)  # (V,)
    if len(slots) != len(images.visual_source):
        raise ValueError(
            f"the prompts keep {len(slots)} places for visual tokens and {images.num_images} "
            f"images become {len(images.visual_source)}: words and pictures would be mixed up. "
            "Let the processor make both from the same messages."
        )
    return slots


def repeated(
    pixels: Tensor, grids: Tensor, places: Tensor, layout: ImageLayout, times: int
) -> tuple[Tensor, Tensor]:
    """The images of a batch in which every sample stands `times` times, one after another.

    Args:
        pixels: (M, S, C*P*P) windows of all images.
        grids: (I, 2) int64.
        places: (N,) int64, slots that every sample keeps for visual tokens.
        layout: of the model.
        times: copies of every sample.

    Returns:
        `pixels` and `grids` of the larger batch.
    """
    tokens = torch.tensor([layout.num_tokens(int(r), int(c)) for r, c in grids.tolist()])  # (I,)
    last = places.cpu().cumsum(0)  # (N,)
    owner = torch.searchsorted(last, tokens.cumsum(0))  # (I,) sample of every image
    windows = grids.cpu().prod(1)  # (I,)
    parts = torch.split(pixels, windows.tolist())
    order = [
        image
        for sample in range(len(places))
        for _ in range(times)
        for image in (owner == sample).nonzero().flatten().tolist()
    ]
    return torch.cat([parts[image] for image in order]), grids[order]
