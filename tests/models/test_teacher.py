"""A frozen teacher on packed images, against its model fed one image at a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    PreTrainedModel,
    SiglipVisionConfig,
    SiglipVisionModel,
    ViTConfig,
    ViTModel,
)

from lit_eve.models.resampling import fitted_grids, onto_squares, unpack
from lit_eve.models.teacher import Normalisation, Teacher
from lit_eve_data.batches import ImageLayout
from tests.models.packed import pack_images
from tests.models.recording import Recording

LAYOUT = ImageLayout(patch=2, pool=2, cls=True, row_end=True)
GIVEN = Normalisation((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
OWN = Normalisation((0.1, 0.2, 0.3), (0.5, 0.6, 0.7))
SIZES = [(24, 16), (8, 32), (12, 12)]  # pixels
SHAPE: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 24,
    "patch_size": 4,
}


def clip() -> PreTrainedModel:
    text = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "vocab_size": 9}
    heads = {"num_attention_heads": 2}
    return CLIPModel(CLIPConfig(text_config=text | heads, vision_config=SHAPE))


def siglip() -> PreTrainedModel:
    return SiglipVisionModel(SiglipVisionConfig(**SHAPE))


def dinov2() -> PreTrainedModel:
    shape = {key: value for key, value in SHAPE.items() if key != "intermediate_size"}
    return Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**shape, num_register_tokens=3))


def vit() -> PreTrainedModel:
    return ViTModel(ViTConfig(**SHAPE), add_pooling_layer=False)


def pixels(sizes: list[tuple[int, int]] = SIZES) -> list[Tensor]:
    """In [0, 1]."""
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(3, *size, generator=generator) for size in sizes]


def normalised(image: Tensor, how: Normalisation) -> Tensor:
    return (image - torch.tensor(how.mean)[:, None, None]) / torch.tensor(how.std)[:, None, None]


def plain(model: PreTrainedModel, image: Tensor, layer: int, prefix: int) -> Tensor:
    """One image: PyTorch's own resize, margins by hand, the cells cut out of the square."""
    cells, cell = 6, 4
    rows, columns = ((cells * n + max(image.shape[1:]) - 1) // max(image.shape[1:])
                     for n in image.shape[1:])  # fmt: skip
    seen = normalised(image, OWN)
    seen = F.interpolate(seen[None], (rows * cell, columns * cell), mode="bicubic", antialias=True)[
        0
    ]
    top, left = (cells - rows) // 2, (cells - columns) // 2
    square = torch.zeros(1, 3, cells * cell, cells * cell)
    square[0, :, top * cell : (top + rows) * cell, left * cell : (left + columns) * cell] = seen
    with torch.no_grad():
        states = model(pixel_values=square, output_hidden_states=True).hidden_states[layer]
    grid: Tensor = states[0, prefix:].view(cells, cells, -1)
    return grid[top : top + rows, left : left + columns].flatten(0, 1)


@pytest.mark.parametrize(("make", "prefix"), [(clip, 1), (siglip, 0), (dinov2, 4), (vit, 1)])
@pytest.mark.parametrize("layer", [-2, 1])
def test_features_are_those_of_one_image_at_a_time(
    make: Callable[[], PreTrainedModel], prefix: int, layer: int
) -> None:
    torch.manual_seed(0)
    model = make()
    model = getattr(model, "vision_model", model)
    teacher = Teacher(model, layer, OWN, LAYOUT, GIVEN)
    images = pack_images([normalised(image, GIVEN) for image in pixels()], LAYOUT)
    features, grids = teacher(images)
    assert grids == ((6, 4), (2, 6), (6, 6))
    wanted = torch.cat([plain(model, image, layer, prefix) for image in pixels()])
    # Measured: 2e-6; PyTorch's resize rounds its weights differently.
    torch.testing.assert_close(features, wanted, atol=2e-5, rtol=1e-4)


def test_an_image_of_the_teacher_s_own_size_is_not_resampled() -> None:
    image = pixels([(24, 24)])
    square = onto_squares(torch.stack(image), [(24, 24)], [(24, 24)], 24, 4)
    assert torch.equal(square[0], image[0])


def test_packed_pixels_come_back_as_they_were() -> None:
    canvas = unpack(pack_images(pixels(), LAYOUT), LAYOUT)
    assert canvas.shape == (3, 3, 24, 32)
    for shown, image in zip(canvas, pixels(), strict=True):
        assert torch.equal(shown[:, : image.shape[1], : image.shape[2]], image)
        assert shown.abs().sum().item() == pytest.approx(image.sum().item())


# EVE at 672 pixels: the teacher's grid is the student's; the longer side is exactly 24 cells.
def test_grids_keep_the_shape_of_the_image() -> None:
    assert fitted_grids(((24, 24), (13, 24), (24, 7)), 24) == ((24, 24), (13, 24), (24, 7))
    assert fitted_grids(((48, 27), (2, 3)), 24) == ((24, 14), (16, 24))


def test_a_holder_neither_trains_nor_saves_it() -> None:
    teacher = Teacher(vit(), -1, OWN, LAYOUT, GIVEN)
    holder = nn.Linear(2, 2)
    holder.teacher = teacher  # type: ignore[assignment]
    assert len(list(holder.parameters())) == 2
    assert list(holder.state_dict()) == ["weight", "bias"]
    assert not any(p.requires_grad for p in teacher.model.parameters())
    holder.train()
    assert not teacher.model.training
    assert not teacher(pack_images(pixels(), LAYOUT)).features.requires_grad


def test_the_operations_do_not_grow_with_the_images() -> None:
    teacher = Teacher(vit(), -1, OWN, LAYOUT, GIVEN)
    counts = []
    for repeats in (1, 4):
        images = pack_images(pixels(SIZES * repeats), LAYOUT)
        with Recording() as recorded:
            teacher(images)
        counts.append(len(recorded.operations))
        assert not recorded.waits
    assert counts[0] == counts[1]


def test_no_images_need_no_teacher() -> None:
    features, grids = Teacher(vit(), -1, OWN, LAYOUT, GIVEN)(pack_images([], LAYOUT))
    assert features.shape == (0, 16)
    assert grids == ()


def test_a_saved_clip_is_read_with_its_own_normalisation(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = clip()
    model.save_pretrained(tmp_path)
    CLIPImageProcessor(image_mean=list(OWN.mean), image_std=list(OWN.std)).save_pretrained(tmp_path)
    images = pack_images([normalised(image, GIVEN) for image in pixels()], LAYOUT)
    read = Teacher.pretrained(str(tmp_path), -2, LAYOUT, GIVEN)
    made = Teacher(model.get_submodule("vision_model"), -2, OWN, LAYOUT, GIVEN)  # type: ignore[arg-type]
    assert read.width == 16
    torch.testing.assert_close(read(images).features, made(images).features)


def test_a_random_teacher_is_the_same_after_a_resume() -> None:
    images = pack_images(pixels(), LAYOUT)
    before = torch.random.get_rng_state()
    one = Teacher.random(ViTConfig(**SHAPE), -1, LAYOUT, GIVEN)(images).features
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(99)
    assert torch.equal(one, Teacher.random(ViTConfig(**SHAPE), -1, LAYOUT, GIVEN)(images).features)


def test_a_layer_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="Choose from -4 to 3; 0 is the embedding"):
        Teacher(vit(), 4, OWN, LAYOUT, GIVEN)


def test_a_model_without_square_patches_is_refused() -> None:
    model = ViTModel(ViTConfig(**{**SHAPE, "image_size": 26}), add_pooling_layer=False)
    with pytest.raises(ValueError, match="Choose a CLIP, SigLIP, DINOv2 or ViT"):
        Teacher(model, -1, OWN, LAYOUT, GIVEN)


def test_a_preprocessor_without_colours_is_refused(tmp_path: Path) -> None:
    vit().save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text("{}")
    with pytest.raises(ValueError, match="Add both to its preprocessor_config"):
        Teacher.pretrained(str(tmp_path), -1, LAYOUT, GIVEN)
