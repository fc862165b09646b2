"""What a tokenizer cannot take: each is told by its value, with the way out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from typer.testing import CliRunner

from lit_eve.cli import app
from lit_eve.inference.encode import FORMAT, fingerprint, load_codes, read_image
from lit_eve.models.tokenizers.codebook import EmaCodebook, Liveliness
from lit_eve.models.tokenizers.convolutional import Layout
from lit_eve.models.tokenizers.fsq import FiniteScalarQuantizer
from lit_eve.models.tokenizers.gumbel import GumbelQuantizer
from lit_eve.models.tokenizers.image_tokenizer import ImageTokenizer
from lit_eve.models.tokenizers.lfq import LookupFreeQuantizer
from lit_eve.models.tokenizers.quantizer import Quantizer
from lit_eve.models.tokenizers.residual import ResidualQuantizer
from lit_eve.models.tokenizers.vector import VectorQuantizer
from lit_eve.schema import ExperimentErrors, load
from tests.files import QUICKSTART
from tests.tokenizer_training import tokenizer, vector

NAN, INFINITE = float("nan"), float("inf")
QUANTIZERS: dict[str, Callable[[], Quantizer]] = {
    "vq": vector,
    "fsq": lambda: FiniteScalarQuantizer([5, 3]),
    "lfq": lambda: LookupFreeQuantizer(3),
    "gumbel": lambda: GumbelQuantizer(8, 4, 12),
    "residual": lambda: ResidualQuantizer([FiniteScalarQuantizer([5, 3])] * 2),
}


def filled(height: int, width: int, value: float = 0.5, count: int = 1) -> Tensor:
    return torch.full((count, 3, height, width), value)


def codes(*values: float, dtype: torch.dtype = torch.int64) -> Tensor:
    return torch.tensor(values).to(dtype).view(1, 1, -1)


IMAGES: dict[str, tuple[Any, str]] = {
    "size": (filled(9, 8), "9 x 8 pixels do not divide into cells of 2 x 2.*e.g. 8 x 8"),
    "empty": (filled(8, 8, count=0), r"\(0, 3, 8, 8\) is empty: drop empty batches"),
    "nan": (filled(8, 8, NAN), "from nan to nan.*a file was decoded wrongly"),
    "range": (filled(8, 8, 255.0), "from 255.0 to 255.0.*divided by 255"),
    "bytes": (filled(8, 8).byte(), "uint8.*Divide bytes by 255"),
    "grey": (filled(8, 8)[:, :1], r"\(1, 1, 8, 8\).*\(images, 3, height, width\)"),
    "list": ([], "an empty list.*at least one"),
    "array": (np.zeros((2, 3, 8, 8)), "a list of ndarray.*torch.from_numpy"),
    "one of a list": ([filled(8, 8)[0], filled(8, 7)[0]], "8 x 7 pixels do not divide"),
}


@pytest.mark.parametrize("name", IMAGES)
def test_images_that_cannot_be_encoded(name: str) -> None:
    images, message = IMAGES[name]
    model = tokenizer(vector())
    with pytest.raises(ValueError, match=message):
        model.encode(images)
    if isinstance(images, Tensor):
        with pytest.raises(ValueError, match=message):
            model.reconstruct(images)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_pixels_may_be_of_any_floating_type(dtype: torch.dtype) -> None:
    model, images = tokenizer(vector()), filled(8, 8, 0.5)
    assert torch.equal(model.encode(images.to(dtype)), model.encode(images))
    assert torch.equal(model.reconstruct(images.to(dtype)), model.reconstruct(images))


@pytest.mark.parametrize("name", QUANTIZERS)
def test_a_double_latent_has_the_codes_of_a_single_one(name: str) -> None:
    quantizer = QUANTIZERS[name]().eval()
    latent = torch.randn(1, quantizer.in_channels, 2, 3, generator=torch.Generator().manual_seed(0))
    out = quantizer(latent.double())
    assert out.latent.dtype == torch.float64
    assert torch.equal(out.codes, quantizer(latent).codes)


def test_a_training_step_refuses_sizes_that_do_not_divide() -> None:
    with pytest.raises(ValueError, match="9 x 8 pixels do not divide"):
        tokenizer(vector())(filled(9, 8))


CODES: dict[str, tuple[Any, str]] = {
    "above": (codes(0, 8), "code 8 is out of range.*0 to 7.*another tokenizer"),
    "below": (codes(0, -1), "code -1 is out of range"),
    "float": (
        codes(1.5, dtype=torch.float32),
        "torch.float32.*as `encode` returned them",
    ),
    "bool": (codes(1, dtype=torch.bool), "torch.bool.*whole numbers"),
    "empty": (codes(), "at least one"),
    "flat": (torch.zeros(4, dtype=torch.int64), r"\(4,\).*\(images, rows, columns\)"),
    "list": ([], "an empty list"),
    "array": (np.zeros((1, 2, 2), np.int64), "a list of ndarray.*torch.from_numpy"),
}


@pytest.mark.parametrize("name", CODES)
def test_codes_that_cannot_be_decoded(name: str) -> None:
    given, message = CODES[name]
    with pytest.raises(ValueError, match=message):
        tokenizer(vector()).decode(given)


def test_there_is_a_grid_for_each_of_a_list() -> None:
    with pytest.raises(ValueError, match=r"1 grids for the codes of 2 images.*leave `grid` out"):
        tokenizer(vector()).decode([codes(0)[0], codes(1)[0]], grid=[(1, 1)])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32])
def test_codes_may_be_kept_in_any_whole_numbers(dtype: torch.dtype) -> None:
    model = tokenizer(vector())
    assert torch.equal(model.decode(codes(3, 7, dtype=dtype)), model.decode(codes(3, 7)))


@pytest.mark.parametrize("value", [NAN, INFINITE])
@pytest.mark.parametrize("name", QUANTIZERS)
def test_latents_that_are_no_numbers_have_no_codes(name: str, value: float) -> None:
    quantizer = QUANTIZERS[name]().eval()
    latent = torch.zeros(1, quantizer.in_channels, 2, 2)
    latent[0, 0, 1, 1] = value
    with pytest.raises(ValueError, match=f"1 of the latent's {latent.numel()} numbers.*float32"):
        quantizer(latent)


def test_a_codebook_does_not_start_from_what_is_no_number() -> None:
    quantizer = VectorQuantizer(EmaCodebook(4, 2)).train()
    with pytest.raises(ValueError, match="8 of the latent's 8 numbers"):
        quantizer(torch.full((1, 2, 2, 2), NAN))


def test_an_unknown_quantizer_is_told_with_the_known_ones() -> None:
    file = QUICKSTART.parent / "tokenizer" / "vq_laptop.yaml"
    with pytest.raises(ExperimentErrors) as caught:
        load(file, ["model.quantizer={type: vqq}"])
    (problem,) = caught.value.problems
    assert "vqq" in problem.message
    assert "vq" in problem.suggestion


UNKNOWN: dict[str, tuple[Callable[[], Any], str]] = {
    "gradient": (
        lambda: VectorQuantizer(EmaCodebook(4, 2), gradient="rotaton"),  # type: ignore[arg-type]
        "gradient 'rotaton' is unknown. Choose one of straight_through, rotation",
    ),
    "distance": (
        lambda: EmaCodebook(4, 2, "cosin"),  # type: ignore[arg-type]
        "distance 'cosin' is unknown. Choose one of euclidean, cosine",
    ),
    "start": (
        lambda: Liveliness(start="k-means"),  # type: ignore[arg-type]
        "start 'k-means' is unknown. Choose one of kmeans, data, random",
    ),
    "relaxation": (
        lambda: GumbelQuantizer(8, 4, 12, "hard"),  # type: ignore[arg-type]
        "relaxation 'hard' is unknown. Choose one of relaxed, straight_through",
    ),
    "norm": (
        lambda: Layout(norm="batch"),  # type: ignore[arg-type]
        "norm 'batch' is unknown. Choose one of group, none",
    ),
    "fit": (
        lambda: read_image(Path("any.png"), 8, "stretch"),  # type: ignore[arg-type]
        "fit 'stretch' is unknown. Choose one of exact, crop, resize",
    ),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_unknown_names_do_not_mean_another_one(name: str) -> None:
    build, message = UNKNOWN[name]
    with pytest.raises(ValueError, match=message):
        build()


# files of codes and pictures, as `lit-eve encode` and `decode` read them -----------------------


def file_of_codes(path: Path, model: ImageTokenizer, found: Tensor, **changes: Any) -> Path:
    metadata = {
        "format": FORMAT,
        "tokenizer": fingerprint(model),
        "names": json.dumps(["a.png"]),
        "sizes": json.dumps([[4, 4]]),
        "grids": json.dumps([[2, 2]]),
    } | changes
    kept = {key: value for key, value in metadata.items() if value is not None}
    save_file({"codes.0": found}, path, kept)
    return path


FILES: dict[str, tuple[Tensor, dict[str, Any], str]] = {
    "float": (torch.zeros(2, 2), {}, "codes of a.png are torch.float32.*Encode again"),
    "names": (
        torch.zeros(2, 2, dtype=torch.int16),
        {"names": "[]"},
        "codes of 1 pictures, but names of 0.*Encode again",
    ),
    "no grids": (torch.zeros(2, 2, dtype=torch.int16), {"grids": None}, "cannot be read.*grids"),
    "torn": (torch.zeros(2, 2, dtype=torch.int16), {"sizes": "[[4"}, "cannot be read"),
}


@pytest.mark.parametrize("name", FILES)
def test_changed_files_of_codes_are_refused(name: str, tmp_path: Path) -> None:
    found, changes, message = FILES[name]
    path = file_of_codes(tmp_path / "codes", tokenizer(vector()), found, **changes)
    with pytest.raises(ValueError, match=message):
        load_codes(path)


COMMANDS: dict[str, tuple[list[str], str]] = {
    "size": (["encode", "RUN", "odd.png"], "odd.png: images of 9 x 8 pixels do not divide"),
    "text": (["encode", "RUN", "text.png"], "text.png cannot be read as a picture"),
    "nan": (
        ["encode", "RUN", "nan.tiff"],
        "nan.tiff cannot be read as a picture: pixels of mode F",
    ),
    "missing": (["encode", "RUN", "none.png"], "none.png is no picture and no folder"),
    "empty folder": (["encode", "RUN", "empty"], "empty is no picture and no folder"),
    "fit": (["encode", "RUN", "odd.png", "--fit", "stretch"], "--fit stretch is unknown"),
    "range": (["decode", "RUN", "range"], "code 9 is out of range"),
    "float": (["decode", "RUN", "float"], "codes of a.png are torch.float32"),
    "no codes": (["decode", "RUN", "text.png"], "cannot be read as a file of codes"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_command_line_says_the_same(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words, message = COMMANDS[name]
    model = tokenizer(vector())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("lit_eve.running.directory.find", lambda run, runs: run)
    monkeypatch.setattr("lit_eve.inference.opening.open_tokenizer", lambda run, stage: model)
    Image.new("RGB", (8, 9)).save("odd.png")
    Image.new("F", (8, 8), NAN).save("nan.tiff")
    Path("text.png").write_text("no picture")
    Path("empty").mkdir()
    file_of_codes(Path("range"), model, torch.full((2, 2), 9))
    file_of_codes(Path("float"), model, torch.zeros(2, 2))
    done = CliRunner().invoke(app, words)
    assert done.exit_code != 0
    assert message in f"{done.output} {done.exception}"


def test_pictures_of_sixteen_bits_are_scaled_and_transparent_ones_lie_on_white(
    tmp_path: Path,
) -> None:
    Image.fromarray(np.full((4, 4), 32896, np.uint16)).save(tmp_path / "deep.png")
    assert torch.equal(read_image(tmp_path / "deep.png", 2), torch.full((3, 4, 4), 128 / 255))
    Image.new("RGBA", (4, 4), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert torch.equal(read_image(tmp_path / "clear.png", 2), torch.ones(3, 4, 4))
