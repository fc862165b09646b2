from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from lit_eve.inference.encode import (
    decode_images,
    encode_files,
    fingerprint,
    load_codes,
    read_image,
    save_codes,
)
from lit_eve.models.tokenizers.codebook import LearnedCodebook, Liveliness
from lit_eve.models.tokenizers.gaussian import GaussianBottleneck
from lit_eve.models.tokenizers.image_tokenizer import ImageTokenizer
from lit_eve.models.tokenizers.multi_scale import MultiScaleQuantizer
from tests.tokenizer_training import tokenizer, vector


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    paths = []
    for number, (height, width) in enumerate([(16, 12), (8, 20), (16, 12)]):
        generator = np.random.default_rng(number)
        pixels = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
        path = tmp_path / f"{number}.png"
        Image.fromarray(pixels).save(path)
        paths.append(path)
    return paths


@pytest.mark.parametrize("batch", [1, 2, 16])
def test_a_file_of_codes_decodes_to_the_reconstructions(
    pictures: list[Path], tmp_path: Path, batch: int
) -> None:
    model, done = tokenizer(vector()), []
    encoded = encode_files(model, pictures, batch=batch, progress=lambda n, _: done.append(n))
    assert done[-1] == 3
    save_codes(encoded, tmp_path / "codes.safetensors")
    loaded = load_codes(tmp_path / "codes.safetensors")
    assert loaded.sizes == ((16, 12), (8, 20), (16, 12))
    assert loaded.grids == ((8, 6), (4, 10), (8, 6))
    for path, (name, picture) in zip(pictures, decode_images(model, loaded, batch), strict=True):
        assert name == str(path)
        expected = model.reconstruct(read_image(path, 2)[None])[0]
        found = torch.from_numpy(np.array(picture)).movedim(-1, 0)
        assert torch.equal(found, (expected * 255).round().to(torch.uint8))
    assert not list(tmp_path.glob("*.part"))


def test_codes_whose_shape_does_not_say_their_grid_are_decoded_too(
    pictures: list[Path], tmp_path: Path
) -> None:
    book = LearnedCodebook(8, 4, liveliness=Liveliness(start="random"))
    model = tokenizer(MultiScaleQuantizer(book, [(1, 1), (4, 4), (8, 8)]))
    save_codes(encode_files(model, pictures), tmp_path / "codes.safetensors")
    loaded = load_codes(tmp_path / "codes.safetensors")
    sizes = [picture.size for _, picture in decode_images(model, loaded)]
    assert sizes == [(12, 16), (20, 8), (12, 16)]


def test_sizes_that_do_not_fit_are_refused_cropped_or_resized(tmp_path: Path) -> None:
    path = tmp_path / "odd.png"
    pixels = np.zeros((17, 15, 3), dtype=np.uint8)
    pixels[0, :] = 255
    Image.fromarray(pixels).save(path)
    with pytest.raises(ValueError, match=r"odd.png: images of 17 x 15.*4 x 4.*`crop` or `resize`"):
        read_image(path, 4)
    assert read_image(path, 4, "crop").shape == (3, 16, 12)
    assert read_image(path, 4, "crop")[:, 0].min() == 1.0  # 0 rows off the top, 1 off the bottom
    assert read_image(path, 4, "resize").shape == (3, 16, 16)
    with pytest.raises(ValueError, match=r"smaller than one cell of 32 x 32"):
        read_image(path, 32, "crop")
    assert read_image(path, 32, "resize").shape == (3, 32, 32)


def test_pictures_of_any_kind_become_rgb(tmp_path: Path) -> None:
    for mode in ("L", "RGBA", "P", "1"):
        Image.new(mode, (4, 6)).save(tmp_path / f"{mode}.png")
        assert read_image(tmp_path / f"{mode}.png", 2).shape == (3, 6, 4)


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(ValueError, match=r"text.png cannot be read as a picture"):
        read_image(tmp_path / "text.png", 2)
    with pytest.raises(ValueError, match=r"missing.png cannot be read"):
        read_image(tmp_path / "missing.png", 2)
    with pytest.raises(ValueError, match="no pictures to encode"):
        encode_files(tokenizer(vector()), [])


def test_codes_of_another_tokenizer_are_refused(pictures: list[Path]) -> None:
    first, second = made(), made()
    encoded = encode_files(first, pictures)
    list(decode_images(second, encoded))  # equal weights are the same tokenizer
    with torch.no_grad():
        next(second.parameters()).add_(1e-3)
    with pytest.raises(ValueError, match="made by another tokenizer"):
        list(decode_images(second, encoded))


def test_a_discriminator_does_not_change_what_codes_mean() -> None:
    assert fingerprint(made(critic=True)) == fingerprint(made())


def made(critic: bool = False) -> ImageTokenizer:
    torch.manual_seed(0)
    return tokenizer(vector(), critic=critic)


def test_a_continuous_tokenizer_has_no_codes_to_write(pictures: list[Path]) -> None:
    with pytest.raises(ValueError, match="continuous, so there are no codes"):
        encode_files(tokenizer(GaussianBottleneck(4, 12)), pictures)


def test_other_files_are_no_codes(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no codes")
    with pytest.raises(ValueError, match="cannot be read as a file of codes"):
        load_codes(tmp_path / "text")
    save_file({"weight": torch.zeros(1)}, tmp_path / "weights")
    with pytest.raises(ValueError, match=r"no file of codes: its format is None"):
        load_codes(tmp_path / "weights")
